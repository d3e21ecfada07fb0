"""The next attempt of a run: from where, and what is refused before anything is changed."""

import os
import signal
import subprocess
import sys

import pytest

from llf_core.config import ConfigError
from llf_core.launch import Run
from llf_core.launch.branch import branch, replay
from llf_core.launch.resume import check_stored
from llf_core.runs import Checkpoints, RunWriter, create_run, read_status, send_request, status
from llf_core.runs.config_file import run_config
from llf_core.runs.process import ProcessId
from llf_core.runs.trust import sign_run

GONE = {"pid": 2**22 - 1, "started": 1.0, "ticks": 1}


def test_resume_goes_on_from_the_newest_whole_checkpoint(started, until, command):
    run = started("holds")
    until(lambda: run.status().step > 12)
    run.stop(wait=True)
    step = Checkpoints(run.folder).list()[-1]
    torn = Checkpoints(run.folder).path(step + 1)
    torn.mkdir()
    (torn / "model").write_text("half")
    assert run.resume(command=command(run.folder, "brief")) is run
    assert run.wait(progress=False).state == "finished"
    final = run.status()
    assert (final.attempt, final.step) == (2, 60)
    (resumed,) = [event for event in run.events() if event["type"] == "resumed"]
    assert (resumed["attempt"], resumed["from_step"], resumed["checkpoint"]) == (
        2,
        step,
        f"checkpoints/checkpoint-{step}",
    )
    assert run.metrics()["loss"].tolist() == [1 / n for n in range(1, 61)]


def test_resume_of_a_run_that_goes_or_has_finished_is_refused(started, until):
    run = started("holds")
    until(lambda: run.state == "running")
    with pytest.raises(RuntimeError, match="is running"):
        run.resume()
    (run.folder.path / "go").touch()
    run.wait(progress=False)
    with pytest.raises(RuntimeError, match="has finished"):
        run.resume()
    assert read_status(run.folder).attempt == 1


REFUSED_NOW = {
    "stage: grpo\nmax_new_tokens: 12\n": (
        "`max_new_tokens` has no effect in stage grpo, which calls this `max_completion_length`.",
        "(line 2): set max_completion_length to 12 or remove max_new_tokens. Then {what} again.",
    ),
    "max_step: 3\n": ("Unknown key `max_step`. Did you mean `max_steps`?", "(line 1): rename to max_steps or remove"),
    "lora_rank: many\n": ("(`lora_rank`) is 'many'.", "(line 1): set to 8. Then {what} again."),
}
"""Keys of a run of an earlier version, and what stands against them by now."""


@pytest.mark.parametrize("keys", REFUSED_NOW)
@pytest.mark.parametrize("what", ["resume", "replay", "branch"])
def test_a_config_that_is_refused_by_now_is_told_before_anything_is_changed(llf_home, keys, what):
    text = f"{keys}dataset: llf_demo\nmodel_name_or_path: smollm2-135m-instruct\nreward_functions: [correct]\n"
    folder = create_run(text, "old")
    RunWriter(folder).close("stopped")
    checkpoints = Checkpoints(folder)
    checkpoints.path(2).mkdir(parents=True)
    (checkpoints.path(2) / "model").write_text("whole")
    checkpoints.finish(2)
    sign_run(folder)
    with pytest.raises(ConfigError) as error:
        getattr(Run(folder), what)()
    wrong, fix = REFUSED_NOW[keys]
    assert wrong in str(error.value)
    assert (
        f"This version of LLF does not accept the config of this run. In {folder.config} {fix.format(what=what)}"
    ) in str(error.value)
    now = read_status(folder)
    assert (now.state, now.attempt) == ("stopped", 1)
    assert [path.name for path in (llf_home / "runs").iterdir()] == [folder.id]


KEPT_URL = "https://***@data.example.org/faq.jsonl"
URLS = {"LLF_URLS": "https://a:b@other.org/x https://me:s3cr3t@data.example.org/faq.jsonl"}


@pytest.fixture
def with_kept_url(monkeypatch):
    """A stopped run with a checkpoint, whose data set was given with a password."""
    monkeypatch.delenv("LLF_URLS", raising=False)
    folder = create_run(f"dataset: {KEPT_URL}\nmodel_name_or_path: smollm2-135m-instruct\n", "old")
    RunWriter(folder).close("stopped")
    checkpoint = Checkpoints(folder).path(2)
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"max_steps": 9}')
    Checkpoints(folder).finish(2)
    sign_run(folder)
    return folder


@pytest.mark.parametrize("what", ["resume", "replay", "branch"])
def test_an_address_that_is_kept_without_its_password_is_asked_for_before_anything_is_changed(
    llf_home, with_kept_url, what
):
    folder = with_kept_url
    with pytest.raises(ConfigError, match=rf"Set the environment variable LLF_URLS .*, then {what}\.") as error:
        getattr(Run(folder), what)()
    assert KEPT_URL in str(error.value)
    assert (read_status(folder).state, read_status(folder).attempt) == ("stopped", 1)
    assert [path.name for path in (llf_home / "runs").iterdir()] == [folder.id]
    check_stored(folder, what, URLS)


def test_a_new_run_takes_the_password_from_the_environment_that_it_is_given(with_kept_url):
    assert run_config(replay(with_kept_url, env=URLS)).get("dataset") == (KEPT_URL,)
    branched = branch(with_kept_url, 2, env=URLS)
    assert run_config(branched).get("dataset") == (KEPT_URL,)
    with pytest.raises(ConfigError, match=r"LLF_URLS .*, then replay\."):
        replay(branched)
    assert read_status(replay(branched, env=URLS)).step == 2


@pytest.mark.parametrize("which", ["trainer", "supervisor"])
def test_the_process_that_does_not_exit_is_named(monkeypatch, which):
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "stuck")
    own = ProcessId.of(os.getpid()).json()
    processes = {**own, "supervisor": GONE} if which == "trainer" else {**GONE, "supervisor": own}
    status.update(folder, state="failed", **processes)
    sign_run(folder)
    monkeypatch.setattr("llf_core.launch.resume.TEARDOWN_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match=rf"^Process {os.getpid()} of the last attempt is still running"):
        Run(folder).resume(command=["false"])
    assert read_status(folder).attempt == 1


def test_resume_of_a_lost_run(started, until, command):
    run = started("holds")
    until(lambda: Checkpoints(run.folder).latest())
    now = run.status()
    os.kill(now.supervisor_process.pid, signal.SIGKILL)
    os.kill(now.pid, signal.SIGKILL)
    until(lambda: run.state == "lost")
    run.resume(command=command(run.folder, "brief"))
    assert run.wait(progress=False).state == "finished"


def test_a_run_that_failed_before_its_first_checkpoint_starts_anew(started, command):
    run = started("raises")
    run.wait(progress=False)
    run.resume(command=command(run.folder, "short"))
    assert run.wait(progress=False).state == "finished"
    (resumed,) = [event for event in run.events() if event["type"] == "resumed"]
    assert (resumed["from_step"], resumed["checkpoint"]) == (0, None)


RESUME = """
import sys
from llf_core.launch import attach
try:
    attach(sys.argv[1]).resume(command=sys.argv[2:])
    print("resumed")
except RuntimeError as error:
    print("refused", error)
"""


def test_two_that_resume_at_once_start_one_trainer(started, command):
    run = started("exit-3")
    run.wait(progress=False)
    arguments = [sys.executable, "-c", RESUME, run.id, *command(run.folder, "brief")]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(child.communicate(timeout=120)[0].split()[0] for child in children)
    assert said == ["refused", "refused", "resumed"]
    assert run.wait(progress=False).state == "finished"
    assert read_status(run.folder).attempt == 2
    assert run.metrics()["loss"].tolist() == [1 / n for n in range(1, 61)]


def test_a_stop_sent_right_after_resume_is_heeded(started, until, command):
    run = started("holds")
    until(lambda: Checkpoints(run.folder).latest())
    run.kill()
    run.resume(command=command(run.folder, "train"))
    send_request(run.folder, "stop", by="test")
    assert run.wait(120, progress=False).state == "stopped"
