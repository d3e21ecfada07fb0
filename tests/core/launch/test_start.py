"""`launch`: from a config, with or without rows, to a run that goes."""

import hashlib
import json
import re
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from llf_core.config import ConfigError, RunConfig
from llf_core.launch import attach, launch, local_process, sweep
from llf_core.launch.start import RowsError
from llf_core.runs import home, list_runs
from tests.processes import wait_for_supervisor

CONFIG = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "data.json", "max_steps": 3, "seed": 9}
RIGHT = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "lora_target": "all"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a data set."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "data.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    return tmp_path / "work"


@pytest.fixture
def nothing():
    """What is started in place of the trainer: it ends at once."""
    return [sys.executable, "-c", "print('started')"]


def test_the_folder_holds_what_the_contract_says(here, nothing):
    began = time.time()
    run = launch(CONFIG, command=nothing, notebook={"path": "a.ipynb", "cell": "x"}, env={"HF_TOKEN": "hf_secret"})
    wait_for_supervisor(run)
    assert run.id.endswith("-smollm2-135m-instruct-sft-lora")
    config = yaml.safe_load(run.folder.config.read_text())
    assert (config["seed"], config["max_steps"], config["stage"]) == (9, 3, "sft")
    assert config["lora_rank"] == 8  # defaults too
    assert str(here / "data.json") in json.dumps(config["dataset"])
    env = json.loads(run.folder.env.read_text())
    assert (env["format"], env["seed"], env["notebook"]["path"], env["cwd"]) == (1, 9, "a.ipynb", str(here))
    assert run.status().created == pytest.approx(began, abs=10)
    assert "started" in run.log()
    assert not any(b"hf_secret" in path.read_bytes() for path in run.folder.path.rglob("*") if path.is_file())
    assert attach(run.id).id == run.id
    assert list_runs().total == 1


@pytest.mark.usefixtures("here")
def test_a_system_that_starts_no_process_fails_the_run_with_the_reason(nothing, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    names = {name: getattr(subprocess, name) for name in ("DEVNULL", "TimeoutExpired")}
    monkeypatch.setattr(local_process, "subprocess", SimpleNamespace(Popen=refuse, **names))
    with pytest.raises(RuntimeError, match="did not start: Resource temporarily unavailable"):
        launch(CONFIG, command=nothing)
    (row,) = list_runs().rows
    assert (row.state, row.reason) == (
        "failed",
        "The run's supervisor did not start: Resource temporarily unavailable.",
    )


def test_a_password_of_an_address_goes_by_the_environment_and_is_kept_nowhere(here):
    address = "https://me:s3cr3t@data.example.org/faq.jsonl"
    told = "import hashlib, os; print(hashlib.sha256(os.environ['LLF_URLS'].strip().encode()).hexdigest())"
    shown = "import os; print(os.environ['LLF_URLS'])"
    for text in (told, shown):
        run = launch(CONFIG | {"dataset": address}, command=[sys.executable, "-c", text])
        wait_for_supervisor(run)
        assert yaml.safe_load(run.folder.config.read_text())["dataset"] in (
            "https://***@data.example.org/faq.jsonl",
            ["https://***@data.example.org/faq.jsonl"],
        )
        files = [path for path in run.folder.path.rglob("*") if path.is_file()]
        assert not any(b"s3cr3t" in path.read_bytes() for path in files if path != run.folder.log)
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert "s3cr3t" not in run.log()
        if text == told:
            assert hashlib.sha256(address.encode()).hexdigest() in run.log()
        else:
            assert "https://***@data.example.org/faq.jsonl" in run.log()


def test_the_config_in_the_folder_repeats_the_run(here, nothing):
    run = launch(CONFIG, name="First one!", command=nothing)
    assert run.id.endswith("-first-one")
    again = RunConfig.load(run.folder.config)
    assert again.flat(defaults=True) == RunConfig.load(CONFIG).flat(defaults=True)


def test_rows_travel_as_a_file_beside_the_config(here, nothing):
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]
    run = launch({key: value for key, value in CONFIG.items() if key != "dataset"}, rows=rows, command=nothing)
    (file,) = run.folder.data.iterdir()
    env = json.loads(run.folder.env.read_text())
    assert file.name == f"rows-{env['data']['fingerprint']}.parquet"
    dataset = RunConfig.load(run.folder.config).data.dataset
    assert str(file) in json.dumps(dataset if isinstance(dataset, str) else list(dataset))
    assert list((home() / "cache").iterdir()) == []


def test_a_config_beside_rows_is_stored_without_secrets(here, nothing):
    config = {key: value for key, value in CONFIG.items() if key != "dataset"}
    config["default_system"] = "Log in with API_KEY=a1b2c3d4"
    run = launch(config, rows=[{"instruction": "a", "output": "b"}], command=nothing)
    assert RunConfig.load(run.folder.config).data.default_system == "Log in with API_KEY=***"


def test_another_home(here, tmp_path, nothing):
    run = launch(
        CONFIG, home=tmp_path / "other", command=[sys.executable, "-c", "import os; print(os.environ['LLF_HOME'])"]
    )
    wait_for_supervisor(run)
    assert run.folder.home == tmp_path / "other"
    assert str(tmp_path / "other") in run.log()
    assert not (home() / "runs").exists()


def test_a_bad_config_or_bad_rows_leave_nothing(here, nothing):
    with pytest.raises(ConfigError):
        launch({**CONFIG, "learning_rat": 1}, command=nothing)
    with pytest.raises(RowsError):
        launch(CONFIG, rows=[], command=nothing)
    with pytest.raises(ConfigError):
        launch({**CONFIG, "stage": "nothing"}, rows=[{"a": 1}], command=nothing)
    assert list_runs().total == 0
    assert [path for path in home().rglob("*") if path.is_file()] == []


def test_a_module_beside_the_notebook_is_not_taken_for_the_library(here):
    (here / "json.py").write_text("raise SystemExit('the wrong json')")
    (here / "psutil.py").write_text("raise SystemExit('the wrong psutil')")
    run = launch(CONFIG, command=[sys.executable, "-P", "-c", "import json, psutil; print('right')"])
    wait_for_supervisor(run)
    assert run.log() == "right"


def test_it_returns_long_before_the_trainer_has_loaded(here):
    run = launch(CONFIG, command=[sys.executable, "-c", "import time; time.sleep(3600)"])
    assert run.state == "starting"
    run.kill()


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"model_name_or_path": "smollm2-135m-instrct"}, "smollm2-135m-instruct"),
        ({"dataset": "llf_dmo"}, "llf_demo"),
        ({"lora_target": "q_prj"}, "q_proj"),
        ({"model_name_or_path": "/nowhere/llama"}, "No such file or folder: /nowhere/llama."),
    ],
)
def test_a_name_that_does_not_exist_starts_nothing(llf_home, changes, right):
    with pytest.raises(ConfigError, match=re.escape(right)):
        launch({"dataset": "llf_demo"} | changes)
    with pytest.raises(ConfigError, match=re.escape(right)):
        sweep({"dataset": "llf_demo"}, {key: [RIGHT[key], value] for key, value in changes.items()})
    assert not (llf_home / "runs").exists()
