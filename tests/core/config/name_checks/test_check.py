"""The whole check: what a hub answers, that it is not waited for, and that good configs stay good."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from llf_core.config import preset, presets, validate
from llf_core.config.name_checks import check, check_local, query_hub
from llf_core.config.name_checks.hub import Question
from llf_core.config.name_checks.models import families
from llf_core.model_catalog import known_models
from tests.core.models.hub_server import Hub, serve

ROOT = Path(__file__).parents[4]
LLF = str(Path(sys.executable).with_name("llf"))
ASKED = {"dataset": "somebody/rows", "model_name_or_path": "somebody/model"}


@contextmanager
def hanging():
    """A hub that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def take():
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        for one in taken:
            one.close()


@pytest.fixture
def online(monkeypatch):
    """A hub may be asked, whatever the variable was when the client was imported; its import takes none of the 3 s."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def hub(monkeypatch, tmp_path, online):
    """A hub that answers, and knows `somebody/model` and `somebody/rows`."""
    hub = Hub()
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text("{}")
    hub.repos = {"somebody/model": tmp_path / "repo", "somebody/rows": tmp_path / "repo"}
    with serve(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield hub


def test_what_the_hub_has_passes_and_nothing_is_downloaded(hub):
    assert check(validate(ASKED)).problems == ()
    paths = sorted(path for _, path in hub.asked if "somebody" in path)  # the client also asks about itself
    assert paths == ["/api/datasets/somebody/rows", "/api/models/somebody/model"]


def test_what_the_hub_has_not_is_an_error_with_the_nearest_name(hub):
    report = check(validate({"dataset": "llf_demo", "model_name_or_path": "Qwen/Qwen2.5-7B-Instrct"}))
    (problem,) = report.unresolved
    assert (problem.severity, report.ok) == ("error", False)
    assert problem.message.startswith("There is no model 'Qwen/Qwen2.5-7B-Instrct' on http://127.0.0.1:")
    assert dict(problem.fixes[0].changes) == {"model_name_or_path": "Qwen/Qwen2.5-7B-Instruct"}


@pytest.mark.parametrize(("status", "code"), [(500, ""), (403, ""), (429, "")])
def test_a_hub_that_has_trouble_is_a_note(hub, status, code):
    hub.repos["somebody/model"] = (status, code)
    (problem,) = check(validate(ASKED)).unresolved
    assert problem.severity == "note"
    assert f"answered {status}" in problem.message


def test_a_gated_model_is_there(hub):
    hub.repos["somebody/model"] = (403, "GatedRepo")
    assert check(validate(ASKED)).problems == ()


def test_offline_nobody_is_asked(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    report = check(validate(ASKED))
    assert [problem.severity for problem in report.problems] == ["note", "note"]
    assert "HF_HUB_OFFLINE is set" in report.problems[0].message
    assert hub.asked == []


def test_a_client_that_was_imported_offline_is_respected(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in check(validate(ASKED)).problems[0].message
    assert hub.asked == []


def test_a_known_name_asks_nobody(hub):
    check(validate({"dataset": "tatsu-lab/alpaca", "model_name_or_path": "Qwen/Qwen3-0.6B", "lora_target": "q_proj"}))
    assert hub.asked == []


def test_a_hub_that_never_answers_is_waited_for_3_s_at_most(monkeypatch, online):
    with hanging() as (address, taken):
        monkeypatch.setenv("HF_ENDPOINT", address)
        report = validate(ASKED | {"adapter_name_or_path": "somebody/a,somebody/b"})
        began = time.monotonic()
        checked = check(report)
        took = time.monotonic() - began
        assert 1 <= len(taken) <= 4
    assert 2.9 < took < 9  # once for all four names, on a machine that others use too
    assert [problem.severity for problem in checked.problems] == ["note"] * 4
    assert "did not answer within 3 s" in checked.problems[0].message
    assert checked.ok


def test_a_late_answer_names_the_hub_that_was_asked(monkeypatch, online):
    mirrored = Question("model", "somebody/model", "model_name_or_path", "somebody/model", hub="modelscope")
    other = Question("dataset", "somebody/rows", "dataset", "somebody/rows")
    with hanging() as (address, _), hanging() as (another, _):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
        monkeypatch.setenv("HF_ENDPOINT", another)
        answers = query_hub([mirrored, other], seconds=0.2)
    assert answers[mirrored].why == f"{address} did not answer within 0.2 s"
    assert answers[other].why == f"{another} did not answer within 0.2 s"


def test_the_command_does_not_wait_longer_either(machine):
    (machine / "c.yaml").write_text("dataset: somebody/a,somebody/b,somebody/c\nmodel_name_or_path: somebody/model\n")
    (machine / "d.yaml").write_text("dataset: llf_demo\n")

    def timed(file, address):
        began = time.monotonic()
        env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address}
        done = subprocess.run([LLF, "validate", file], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    with hanging() as (address, _):
        longer = (timed("c.yaml", address) - timed("d.yaml", address) for _ in range(4))  # others use the machine too
        assert any(seconds < 9 for seconds in longer)  # in turn the four names would take 12 s


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("model_name_or_path: smollm2-135m-instrct", "smollm2-135m-instruct"),
        ("dataset: alpaca_en_dmo", "alpaca_en_demo"),
        ("lora_target: q_prj", "q_proj"),
    ],
)
def test_the_typos_exit_with_2_and_the_right_name_and_line(machine, line, right):
    (machine / "c.yaml").write_text(f"stage: sft\n{line}\n" + ("" if "dataset" in line else "dataset: llf_demo\n"))
    for command in (["validate", "c.yaml"], ["train", "c.yaml"]):
        done = subprocess.run([LLF, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"Did you mean {right}?" in done.stderr.replace("'", "")
        assert "(line 2)" in done.stderr
    assert not (Path(os.environ["LLF_HOME"]) / "runs").exists()


def test_what_this_machine_lacks_is_an_error_where_a_run_begins(machine):
    report = validate({"dataset": "identity,alpaca_en_demo", "model_name_or_path": "/nowhere/llama"})
    assert [problem.severity for problem in check(report).problems] == ["warning"] * 3
    assert [problem.severity for problem in check(report, starting=True).problems] == ["error"] * 3


def test_a_key_that_is_wrong_by_itself_is_told_once():
    report = check(validate({"dataset": "llf_demo", "lora_target": 7}))
    assert [problem.kind for problem in report.problems if problem.key == "lora_target"] == ["invalid"]


def good_configs():
    """The presets, and every config of the README, the docs and the notebooks that is complete."""
    for one in presets():
        yield one.name, {"dataset": "llf_demo"} | preset(one.name)
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)):
            if "model_name_or_path" in block and "dataset" in block:
                yield f"{file.name}-{number}", block
    for family in families():
        for model in [one for one in known_models() if one.type in family.types][:1]:
            target = ",".join(family.linear)
            keys = {"model_name_or_path": model.id, "dataset": "identity,alpaca_en_demo", "lora_target": target}
            yield model.id, keys


@pytest.mark.parametrize(
    ("name", "config"), list(good_configs()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_good_configs_stay_good(name, config):
    report = check(validate(config))
    assert [problem.message for problem in report.unresolved if problem.severity == "error"] == []


def test_no_question_no_thread():
    assert query_hub([]) == {}
    assert check_local(validate({"dataset": "llf_demo"}).config).questions == ()
