"""The command line: what it prints, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llf_core import __version__
from llf_core.cli import UserError, app
from llf_core.runs import Checkpoints, RunReader, create_run, list_runs, open_run, read_status, status

LLF = str(Path(sys.executable).with_name("llf"))


@pytest.fixture
def llf():
    runner = CliRunner()
    return lambda *args, **more: runner.invoke(app, [str(arg) for arg in args], **more)


@pytest.fixture
def config(tmp_path, tiny_model_dir):
    """A YAML file of a tiny run that goes on for a while."""
    rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    path = tmp_path / "config.yaml"
    settings = {
        "model_name_or_path": str(tiny_model_dir),
        "stage": "sft",
        "finetuning_type": "lora",
        "dataset": "rows.json",
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "logging_steps": 1,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_version(llf):
    assert llf("version").output.strip() == __version__


def test_validate_names_the_nearest_key_its_line_and_exits_2(llf, config):
    config.write_text(config.read_text() + "lora_rnak: 8\n")
    result = llf("validate", config, "--json")
    assert result.exit_code == 2
    (unknown,) = json.loads(result.output)["unknown"]
    assert unknown["key"] == "lora_rnak"
    assert "lora_rank" in unknown["message"]
    assert unknown["line"] == 8
    text = llf("validate", config)
    assert "lora_rank" in text.output
    assert "line 8" in text.output


def test_validate_accepts_a_good_config(llf, config):
    result = llf("validate", config)
    assert (result.exit_code, result.output.strip()) == (0, "The config is good.")


def test_validate_takes_the_overrides_that_train_takes(llf, config):
    assert llf("validate", config, "lora_rank=16").exit_code == 0
    wrong = llf("validate", config, "lora_rank=-1")
    assert wrong.exit_code == 2
    assert "-1" in wrong.output


@pytest.mark.parametrize("command", ["validate", "train"])
def test_columns_that_fit_no_format_are_told_before_a_run_begins(llf, config, command):
    rows = [{"frage": f"Was ist {i}?", "antwort": f"Es ist {i}."} for i in range(20)]
    config.with_name("rows.json").write_text(json.dumps(rows))
    result = llf(command, config)
    assert result.exit_code == 2
    assert "columns frage, antwort, which fit no known format" in result.output.replace("\n", " ")
    assert list_runs().total == 0
    fits = {"dataset_format": "alpaca", "dataset_columns": {"prompt": "frage", "response": "antwort"}}
    config.write_text(config.read_text() + yaml.safe_dump(fits))
    good = llf("validate", config)
    assert (good.exit_code, good.output.strip()) == (0, "The config is good.")


def test_the_report_of_the_demo_is_on_its_own_run(llf):
    for dataset in ("llf_demo", "rows.json"):
        folder = create_run(f"model_name_or_path: m\ndataset: {dataset}\n", "of " + dataset)
        status.update(folder, state="failed", reason=f"It was {dataset}.")
    assert "It was llf_demo." in llf("demo", "--report").output


def test_a_missing_config_is_one_sentence_and_exit_2(tmp_path):
    done = subprocess.run([LLF, "train", "nowhere.yaml"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_shows_what_is_trained(llf, config):
    result = llf("inspect", config, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["examples"] == 20
    assert 0 < report["trained_tokens"] < report["tokens"]
    assert report["dropped"] == []
    assert 0 < report["packing_fill"] <= 1
    assert "⟦It is 0." in llf("inspect", config).output


def test_inspect_dumps_and_is_strict(llf, config, tmp_path):
    rows = config.parent / "rows.json"
    rows.write_text(json.dumps([*json.loads(rows.read_text()), {"instruction": "What?", "output": ""}]))
    result = llf("inspect", config, "--json", "--dump", tmp_path / "dump.jsonl", "--strict")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(20))
    assert sum(len(line["input_ids"]) for line in lines) == json.loads(result.stdout)["tokens"]
    refused = llf("inspect", config, "--dump", tmp_path / "nowhere" / "dump.jsonl")
    assert refused.exit_code == 1
    assert "No such file" in str(refused.exception)


def test_train_follows_the_run_to_its_end(config, llf_home):
    done = subprocess.run([LLF, "train", config, "max_steps=3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "finished at step 3 of 3" in done.stdout
    (row,) = list_runs(llf_home).rows
    assert len(RunReader(open_run(row.id)).metrics().values("loss")) == 3


def test_a_run_that_fails_exits_2_with_its_reason(config, llf_home):
    (config.parent / "rows.json").write_text("[]")
    done = subprocess.run([LLF, "train", config], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "rows.json" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_stops_with_a_checkpoint_and_resume_goes_on(config, llf_home, llf):
    process = subprocess.Popen(
        [LLF, "train", config, "max_steps=100000", "save_strategy=no"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = list_runs(llf_home).rows
        if rows and rows[0].step > 0:
            break
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "llf runs resume" in output
    (row,) = list_runs(llf_home).rows
    assert row.state == "stopped"
    folder = open_run(row.id)
    assert Checkpoints(folder).complete(row.step)
    shown = llf("runs", "show", "last", "--json")
    assert json.loads(shown.output)["state"] == "stopped"


REWARDS = "from llf_core.rewards import reward\n\n@reward\ndef vowels(answer):\n    return answer.count('a') / VALUE\n"


def test_reward_functions_of_a_file_judge_and_are_mended(config, llf_home, llf, monkeypatch):
    monkeypatch.setattr("llf_core.rewards.decorator._recorded", {})
    file = config.parent / "rewards.py"
    file.write_text("VALUE = 0\n" + REWARDS)
    online = ["stage=grpo", "num_generations=2", "max_completion_length=4", "top_k=0", "top_p=1", "max_steps=2"]
    unnamed = llf("train", config, *online)
    assert unnamed.exit_code == 2
    failed = llf("train", config, *online, "--rewards", file)
    assert failed.exit_code == 1, failed.output
    (row,) = list_runs(llf_home).rows
    assert "ZeroDivisionError" in read_status(open_run(row.id)).reason
    another = "@reward\ndef another(answer):\n    return 1.0\n"
    file.write_text("from llf_core.rewards import reward\n\n" + another)
    refused = llf("runs", "resume", row.id, "--rewards", file)
    assert refused.exit_code == 1
    assert str(refused.exception).endswith(f"no reward function of {row.id}: it defines another, and it has vowels.")
    file.write_text("VALUE = 10\n" + REWARDS + "\n\n" + another)
    resumed = llf("runs", "resume", row.id, "--rewards", file)
    assert resumed.exit_code == 0
    assert f"{row.id} has no reward function another: left aside." in resumed.output
    assert len(RunReader(open_run(row.id)).metrics().values("rewards/vowels/mean")) == 2
    answers = llf("train", config, "--rewards", file)
    assert answers.exit_code == 1
    assert "Reward functions were given, and stage sft takes none" in str(answers.exception)
    some = llf("train", config, *online, "reward_functions=vowels,length", "--rewards", file, "--detach")
    assert some.exit_code == 0, some.output
    assert "The config has no reward function another: left aside." in some.output
    missing = llf("train", config, "--rewards", config.parent / "none.py")
    assert missing.exit_code == 1
    assert "cannot be read" in str(missing.exception)


@pytest.mark.launches
def test_a_live_run_is_told_from_a_terminal_and_repeated(config, llf_home, llf):
    assert llf("train", config, "max_steps=100000", "save_strategy=no", "val_size=4", "--detach").exit_code == 0
    (row,) = list_runs(llf_home).rows
    deadline = time.monotonic() + 120
    while list_runs(llf_home).rows[0].step < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "→ 3e-4 from step" in llf("runs", "set", row.id, "learning_rate=3e-4").output
    assert "The evaluation loss is" in llf("runs", "evaluate", row.id).output
    assert "A prompt is watched from step" in llf("runs", "set", row.id, "watch=Say hi.", "max_steps=1e6").output
    assert llf("runs", "sample", row.id).output.startswith("Answered at step")
    assert "is whole" in llf("runs", "checkpoint", row.id).output
    assert str(llf("runs", "set", row.id, "max_steps=1").exception).startswith("The run is at step")
    assert str(llf("runs", "set", row.id, "lora_rank=1").exception).startswith("'lora_rank' cannot be changed")
    assert "Expected a number" in str(llf("runs", "set", row.id, "learning_rate=fast").exception)
    assert "is not KEY=VALUE" in str(llf("runs", "set", row.id, "faster").exception)
    assert llf("runs", "stop", row.id).exit_code == 0
    assert str(llf("runs", "evaluate", row.id).exception).endswith("is stopped. Expected a run that is going.")
    code = llf("runs", "show", row.id, "--code").output
    assert "llf.train(" in code
    assert f"llf.attach('{row.id}').replay()" in code
    compile(code, "cell", "exec")

    branched = llf("runs", "branch", row.id, "learning_rate=1e-4", "max_steps=1e6", "--detach").output.strip()
    assert "is not KEY=VALUE" in str(llf("runs", "branch", row.id, "faster").exception)
    assert "step cannot differ in a branch" in str(llf("runs", "branch", row.id, "step=3").exception)
    assert "Expected learning_rate, max_steps" in str(llf("runs", "branch", row.id, "lora_rank=2").exception)
    assert llf("runs", "kill", branched).exit_code == 0
    assert "has no output yet" in str(llf("runs", "loss", branched).exception)


def test_list_show_delete_restore_clean(llf, llf_home):
    folder = create_run("model_name_or_path: m\ndataset: d\nstage: sft\n", "mine")
    status.update(folder, state="failed", reason="It was [bold]too large[/bold].")
    listed = llf("runs", "list").output.splitlines()
    assert listed[0].split() == ["RUN", "NAME", "STATE", "STEP", "LOSS", "AGE"]
    assert listed[1].split()[:3] == [folder.id[:15], "mine", "failed"]
    assert listed[2] == "  It was [bold]too large[/bold]."
    shown = llf("runs", "show", folder.id[:15]).output
    assert "Reason       It was [bold]too large[/bold].\n" in shown
    assert f"Next         llf runs resume {folder.id[:15]}  # begin again\n" in shown
    assert llf("runs", "delete", folder.id).exit_code == 0
    assert json.loads(llf("runs", "list", "--json").output)["total"] == 0
    assert llf("runs", "restore", folder.id[:15]).output == f"{folder.id} is back.\n"
    assert llf("runs", "stop", "last").output == llf("runs", "kill", "last").output
    assert llf("runs", "kill", "last").output == f"{folder.id} has ended already: failed.\n"
    wrong = llf("runs", "list", "--state", "finishd").exception
    assert str(wrong).startswith("'finishd' is not a state. Did you mean 'finished'? Expected one of created, ")
    assert json.loads(llf("runs", "list", "--json", "--query", "mine").output)["total"] == 1
    llf("runs", "delete", folder.id)
    assert "Freed" in llf("runs", "clean", "--yes").output
    assert not [one for one in (llf_home / "bin").iterdir() if not one.name.startswith(".")]


@pytest.mark.parametrize("run_id", ["../../etc", "no-such-run", "UPPER"])
def test_an_id_that_is_none_is_one_sentence(run_id, tmp_path):
    done = subprocess.run([LLF, "runs", "show", run_id], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert run_id in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_run_refuses_is_one_sentence(llf, llf_home):
    lost, broken, twice = (create_run("dataset: d\n", name) for name in ("lost", "broken", "twice"))
    status.update(lost, state="running", boot_id="another boot")
    status.update(twice, state="failed", reason="It was.")
    broken.status.write_text("{")
    llf("runs", "delete", twice.id)
    twice.path.mkdir()
    for command, folder, words in (
        ("stop", lost, "Nothing of"),
        ("stop", broken, "can't be read"),
        ("kill", broken, "can't be read"),
        ("resume", broken, "can't be read"),
        ("restore", twice, "already"),
    ):
        refused = llf("runs", command, folder.id).exception
        assert isinstance(refused, UserError), command
        assert words in str(refused)


def test_a_warning_is_shown_and_the_run_starts(llf, llf_home, config):
    config.write_text(config.read_text() + "learning_rate: 0\n")
    result = llf("train", config, "--detach")
    assert result.exit_code == 0
    assert "nothing is learned" in result.output
    llf("runs", "kill", "last")


def test_windows_is_refused_with_a_sentence(llf_home):
    """With what Windows lacks taken away, and its name given after the command line itself is loaded."""
    code = (
        "import sys, llf_core.cli; sys.platform = 'win32'; sys.modules['fcntl'] = None; "
        "sys.argv = ['llf', 'runs', 'list']; "
    )
    for act in ("llf_core.cli.main()", "import llf_core.launch.start"):
        done = subprocess.run([sys.executable, "-c", code + act], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "LLF does not run on Windows" in done.stderr.splitlines()[-1]


def test_env_tells_versions_and_home(llf, llf_home):
    facts = json.loads(llf("env", "--json").output)
    assert facts["llf"] == __version__
    assert "torch" in facts["packages"]
    assert str(llf_home) in json.dumps(facts)
