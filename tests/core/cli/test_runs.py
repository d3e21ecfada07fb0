"""`llf runs …`: what each command prints and does."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llf_core.cli.terminal import UserError
from llf_core.launch.queue import enqueue
from llf_core.runs import create_run, list_runs, read_status, status
from llf_core.runs.run_index import active_runs
from llf_core.runs.states import SHOWN_STATES
from llf_widgets.compare import Compare

LLF = str(Path(sys.executable).with_name("llf"))


@pytest.mark.usefixtures("warm_python")
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
    assert llf("runs", "sample", row.id).output.startswith("Generated at step")
    assert "is complete" in llf("runs", "checkpoint", row.id).output
    assert str(llf("runs", "set", row.id, "max_steps=1").exception).startswith("The run is already at step")
    assert str(llf("runs", "set", row.id, "lora_rank=1").exception).startswith("'lora_rank' cannot be changed")
    assert "Expected a number" in str(llf("runs", "set", row.id, "learning_rate=fast").exception)
    assert "is not KEY=VALUE" in str(llf("runs", "set", row.id, "faster").exception)
    assert llf("runs", "stop", row.id).exit_code == 0
    assert str(llf("runs", "evaluate", row.id).exception).endswith("is stopped. Expected a live run.")
    code = llf("runs", "show", row.id, "--code").output
    assert "llf.train(" in code
    assert f"llf.attach('{row.id}').replay()" in code
    compile(code, "cell", "exec")

    branched = llf("runs", "branch", row.id, "learning_rate=1e-4", "max_steps=1e6", "--detach").output.strip()
    assert "is not KEY=VALUE" in str(llf("runs", "branch", row.id, "faster").exception)
    assert "step cannot be changed in a branch" in str(llf("runs", "branch", row.id, "step=3").exception)
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
    assert f"Next         llf runs resume {folder.id[:15]}  # restart\n" in shown
    assert llf("runs", "delete", folder.id).exit_code == 0
    assert json.loads(llf("runs", "list", "--json").output)["total"] == 0
    assert llf("runs", "restore", folder.id[:15]).output == f"{folder.id} is restored.\n"
    assert llf("runs", "stop", "last").output == llf("runs", "kill", "last").output
    assert llf("runs", "kill", "last").output == f"{folder.id} has already ended: failed.\n"
    wrong = llf("runs", "list", "--state", "finishd").exception
    assert str(wrong).startswith(
        "'finishd' is not a run state. Did you mean 'finished'? Expected one of queued, created, "
    )
    assert json.loads(llf("runs", "list", "--json", "--query", "mine").output)["total"] == 1
    llf("runs", "delete", folder.id)
    assert "Freed" in llf("runs", "clean", "--yes").output
    assert not [one for one in (llf_home / "bin").iterdir() if not one.name.startswith(".")]


def test_a_waiting_run_is_queued_in_every_list_and_a_state_of_the_filter(llf):
    folder, other = create_run("stage: sft\n", "waits"), create_run("stage: sft\n", "begins")
    enqueue(folder)
    assert read_status(folder).state == "created"  # as stored, and as it was in every list but the sweep's
    found = json.loads(llf("runs", "list", "--json", "--state", "queued").output)
    assert [(run["id"], run["state"]) for run in found["runs"]] == [(folder.id, "queued")]
    assert llf("runs", "list", "--state", "created").output.splitlines()[1].split()[1:3] == ["begins", "created"]
    shown = llf("runs", "show", folder.id).output
    assert "State        queued\n" in shown
    assert shown.endswith("  # remove from the queue\n")
    assert llf("runs", "delete", folder.id).exception.args[0].startswith(f"{folder.id} is queued. ")
    assert {row.id for row in active_runs()} == {folder.id, other.id}
    comparison = Compare({"both": [folder.id, other.id]})
    assert "queued" in comparison._repr_mimebundle_()[0]["text/html"]
    words = " ".join(llf("runs", "list", "--help").output.split())
    assert all(state in words for state in SHOWN_STATES)


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
        ("stop", lost, "No process of"),
        ("stop", broken, "cannot be read"),
        ("kill", broken, "cannot be read"),
        ("resume", broken, "cannot be read"),
        ("restore", twice, "already"),
    ):
        refused = llf("runs", command, folder.id).exception
        assert isinstance(refused, UserError), command
        assert words in str(refused)
