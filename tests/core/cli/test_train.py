"""`llf train` and `llf demo`: a run is followed to its end, interrupted, and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llf_core.cli.follow_run import say_unused
from llf_core.runs import Checkpoints, RunReader, create_run, list_runs, open_run, read_status, status

LLF = str(Path(sys.executable).with_name("llf"))


def test_the_report_of_the_demo_is_on_its_own_run(llf):
    for dataset in ("llf_demo", "rows.json"):
        folder = create_run(f"model_name_or_path: m\ndataset: {dataset}\n", "of " + dataset)
        status.update(folder, state="failed", reason=f"It was {dataset}.")
    assert "It was llf_demo." in llf("demo", "--report").output


def test_reward_functions_that_are_used_are_not_called_unused(capsys):
    say_unused("The config", ["vowels", "length"], iter(["length", "vowels"]))
    assert not capsys.readouterr().err
    say_unused("The config", ["vowels", "length"], iter(["length"]))
    assert capsys.readouterr().err == "The config has no reward function vowels: ignored.\n"


def test_a_missing_config_is_one_sentence_and_exit_2(tmp_path):
    done = subprocess.run([LLF, "train", "nowhere.yaml"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stderr


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
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert "llf runs resume" in output
    (row,) = list_runs(llf_home).rows
    assert row.state == "stopped"
    folder = open_run(row.id)
    assert Checkpoints(folder).complete(row.step)
    shown = llf("runs", "show", "last", "--json")
    assert json.loads(shown.output)["state"] == "stopped"


REWARDS = "from llf_core.rewards import reward\n\n@reward\ndef vowels(answer):\n    return answer.count('a') / VALUE\n"


@pytest.mark.usefixtures("warm_python")
def test_reward_functions_of_a_file_judge_and_are_mended(config, llf_home, llf, monkeypatch):
    monkeypatch.setattr("llf_core.rewards.REWARDS.registered", {})
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
    assert str(refused.exception).endswith(
        f"does not define a reward function of {row.id}: it defines another, and the run has vowels."
    )
    file.write_text("VALUE = 10\n" + REWARDS + "\n\n" + another)
    resumed = llf("runs", "resume", row.id, "--rewards", file)
    assert resumed.exit_code == 0
    assert f"{row.id} has no reward function another: ignored." in resumed.output
    assert len(RunReader(open_run(row.id)).metrics().values("rewards/vowels/mean")) == 2
    answers = llf("train", config, "--rewards", file)
    assert answers.exit_code == 1
    assert "Reward functions were given, and stage sft does not use them" in str(answers.exception)
    some = llf("train", config, *online, "reward_functions=vowels,length", "--rewards", file, "--detach")
    assert some.exit_code == 0, some.output
    assert "The config has no reward function another: ignored." in some.output
    missing = llf("train", config, "--rewards", config.parent / "none.py")
    assert missing.exit_code == 1
    assert "cannot be read" in str(missing.exception)


@pytest.mark.usefixtures("warm_python")
def test_a_warning_is_shown_and_the_run_starts(llf, llf_home, config):
    config.write_text(config.read_text() + "learning_rate: 0\n")
    result = llf("train", config, "--detach")
    assert result.exit_code == 0
    assert "nothing is learned" in result.output
    llf("runs", "kill", "last")
