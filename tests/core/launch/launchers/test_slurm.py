"""Slurm without Slurm: the script of a job, its options, and the status of a run while Slurm has its job."""

import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llf_core.config import ConfigError, RunConfig
from llf_core.launch import launch
from llf_core.launch.launchers import cluster_watch, launch_problem, slurm
from llf_core.launch.launchers.slurm import job_options, job_script
from llf_core.launch.queue import MachineLoad, enqueue
from llf_core.runs import create_run, list_runs, read_status, send_request, status
from llf_core.runs.listing import shown_status

CONFIG = {"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", "max_steps": 3}
PARTITION = CONFIG | {"launch": "slurm", "launch_target": "gpu"}
SHOW = "import os, sys; os.write(1, repr(sys.argv[1:]).encode())"
WORDS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30) | st.sampled_from(
    ["$(touch x)", "`id`", "a'b", 'a"b', "a\nb", "\n#SBATCH --wrap=x", "-oX", "%j", "\\", "a;b", "&& x", "~", "*", "!x"]
)


@settings(max_examples=60, deadline=None)
@given(WORDS.map(lambda text: f"/tmp/{text.replace('/', '')}"), st.lists(WORDS, min_size=1, max_size=3))
def test_no_word_of_a_script_reaches_the_shell_unquoted(folder, words):
    script = job_script(folder, "/dev/null", 3, words)
    assert shlex.split(script.partition("exec ")[2])[:8] == [
        sys.executable, "-P", "-m", "llf_core.launch.launchers.slurm_job", folder, "3", "--", words[0],
    ]  # fmt: skip
    shown = script.replace(f"{shlex.quote(sys.executable)} -P -m llf_core.launch.launchers.slurm_job", "show")
    shown = shown.replace(">>/dev/null 2>&1", "")
    program = (
        f'show() {{ {shlex.join([sys.executable, "-S", "-c", SHOW])} "$@"; }}\n{shown.replace("exec show", "show")}'
    )
    done = subprocess.run(["/bin/sh"], input=program.encode(), capture_output=True, check=True)
    assert done.stdout.decode() == repr([folder, "3", "--", *words])
    assert not any(line.startswith("#SBATCH") for line in script.partition("exec ")[0].splitlines())


def test_a_job_gets_what_its_processes_use():
    def options(gpus=False, **changes):
        return job_options(RunConfig.load(CONFIG | {"launch": "slurm"} | changes), "x", gpus)

    assert options() == ["--job-name=llf-x", "--nodes=1", "--ntasks=1", "--output=/dev/null", "--open-mode=append"]
    assert options(launch_target="a,b", threads=4, num_processes=2)[5:] == ["--partition=a,b", "--cpus-per-task=8"]
    assert options(gpus=True, num_processes=2)[-1] == "--gpus=2"
    assert "--gpus=1" not in options(gpus=True, use_cpu=True)


def test_without_sbatch_it_says_so_before_a_run_is_made(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"Slurm.s sbatch is not on this machine\. Log in to a machine of the cluster"
    ):
        launch(CONFIG, on="slurm:gpu")
    assert list_runs().total == 0


def test_an_unknown_partition_and_a_slurm_that_does_not_answer_are_refused(monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda _: "/usr/bin/sbatch")
    monkeypatch.setattr(
        slurm, "ask", lambda *command, **_: "" if "--partition=gpu" in command else "cpu (null)\nbig gpu:8"
    )
    assert launch_problem(RunConfig.load(PARTITION)).message == "Slurm has no partition gpu. Expected one of big, cpu."
    monkeypatch.undo()
    monkeypatch.setattr(slurm.shutil, "which", lambda _: "/usr/bin/sbatch")
    monkeypatch.setattr(
        slurm.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "x\nno daemon.\n")
    )
    assert launch_problem(RunConfig.load(PARTITION)).message == "Slurm's sinfo failed: no daemon."
    target = RunConfig.load(PARTITION | {"launch_target": "a:b"})
    assert "Expected the name of a partition" in launch_problem(target).message


def test_what_slurm_refuses_is_the_reason_of_the_run_and_no_secret_reaches_it(monkeypatch):
    seen = []

    def ask(*command, text=None, env=None):
        if command[0] == "sbatch":
            seen.append(env)
            raise RuntimeError("Slurm's sbatch failed: Batch job submission failed: no account.")
        return "gpu (null)"

    monkeypatch.setattr(slurm.shutil, "which", lambda _: "/usr/bin/sbatch")
    monkeypatch.setattr(slurm, "ask", ask)
    monkeypatch.setenv("HF_TOKEN", "hf_outer")
    with pytest.raises(RuntimeError, match="no account"):
        launch(PARTITION, env={"WANDB_API_KEY": "k" * 40, "MARK": "1"})
    (row,) = list_runs().rows
    assert (row.state, row.reason) == ("failed", "Slurm's sbatch failed: Batch job submission failed: no account.")
    assert seen[0]["MARK"] == "1"
    assert not {"HF_TOKEN", "WANDB_API_KEY"} & seen[0].keys()
    with pytest.raises(RuntimeError, match="Slurm would store the keys in the URLs"):
        launch(PARTITION | {"dataset": "https://me:s3cr3t@data.example.org/faq.jsonl"})


@pytest.fixture
def job(monkeypatch):
    """A job whose state a test sets, and the watch of its queued run."""

    class Job:
        state, restarts, cancelled = "PENDING", 0, False

        def __init__(self):
            self.folder = create_run(RunConfig.load(PARTITION).yaml(defaults=True), "queued")
            enqueue(self.folder)
            status.update(self.folder, host=slurm.HOST, boot_id=None)
            self.watch = cluster_watch._JobWatch(self.folder, "7")

        def shown(self, state=None, restarts=0):
            """The run's state after the watch has looked at the job once, and whether that is all."""
            self.state, self.restarts = state or self.state, restarts
            done = self.watch.is_done()
            return shown_status(self.folder).state, done

    one = Job()
    monkeypatch.setattr(cluster_watch, "ask", lambda *_: f"{one.state:<32}{one.restarts:<16}\n")
    monkeypatch.setattr(cluster_watch, "cancel", lambda _: setattr(one, "cancelled", True))
    monkeypatch.setattr(cluster_watch, "LAST_SECONDS", 0.0)
    return one


def test_a_job_that_waits_is_queued_and_delays_no_run_here(job):
    assert job.shown() == ("queued", False)
    assert (
        status.effective_status(read_status(job.folder), now=read_status(job.folder).heartbeat + 50).state == "created"
    )
    assert MachineLoad().ahead() == []


@pytest.mark.parametrize("request_type", ["stop", "kill"])
def test_a_stop_or_kill_cancels_a_job_that_waits(job, request_type):
    send_request(job.folder, request_type)
    assert job.shown() == ("stopped", True)
    assert job.cancelled
    assert not list(job.folder.control.iterdir())
    assert not job.folder.queue.exists()


def test_a_requeued_job_queues_the_next_attempt(job):
    job.folder.queue.unlink()
    status.update(job.folder, state="running", heartbeat=0.0)  # its node is gone, and with it its supervisor
    assert job.shown("RUNNING") == ("lost", False)
    assert job.shown("PENDING", restarts=1) == ("queued", False)
    assert read_status(job.folder).attempt == 2
    assert not job.cancelled


def test_a_run_that_was_ended_while_nobody_watched_is_cancelled(job):
    status.update(job.folder, state="failed", reason="Killed by the user.")
    assert job.shown("PENDING") == ("failed", True)
    assert job.cancelled


def test_the_watch_of_an_earlier_job_leaves_a_resumed_run_alone(job):
    status.update(job.folder, state="stopped")
    status.begin_attempt(job.folder, 2)
    assert job.shown("COMPLETED") == ("queued", True)
    assert read_status(job.folder).state == "created"


@pytest.mark.parametrize(
    ("state", "before"), [("NODE_FAIL", "running"), ("TIMEOUT", "running"), ("CANCELLED", "created")]
)
def test_a_job_that_ends_without_a_word_is_told(job, state, before):
    status.update(job.folder, state=before, step=3, total=9, heartbeat=10**10.0)
    assert job.shown(state) == ("failed", True)
    assert read_status(job.folder).reason.startswith(f"Slurm ended job 7 ({state}) at step 3 of 9.")
