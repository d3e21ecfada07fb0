"""Every process that computes is started with the same environment, whoever starts it."""

import os
import subprocess

import pytest

from llf_core.evaluation.answers import answer_in_child
from llf_core.evaluation.reward_accuracy import reward_accuracy_in_child
from llf_core.evaluation.run_losses import losses_in_child
from llf_core.evaluation.win_rate import win_rate_in_child
from llf_core.launch.local_process import RUNTIME_VARIABLES, THREAD_VARIABLES, computing_environment
from llf_core.launch.supervisor import Supervisor
from llf_core.runs import create_run, update_env
from llf_core.runs.foreign_code import VARIABLE
from llf_widgets.forms.json_command import JsonCommand
from llf_widgets.inspect.data_process import DataProcess


class StartedError(Exception):
    """Raised in place of a process."""


@pytest.fixture
def started(monkeypatch):
    """The environments of the processes that would have been started."""
    found = []

    def start(*arguments, env=None, **rest):
        found.append(dict(env))
        raise StartedError

    monkeypatch.setattr(subprocess, "Popen", start)
    return found


def run(threads=3):
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "a run")
    update_env(folder, threads=threads)
    return folder


STARTS = {
    "trainer": lambda folder: Supervisor(folder)._supervise(),
    "losses": lambda folder: losses_in_child(folder.id),
    "answers": lambda folder: answer_in_child(folder.id, ["Hello"]),
    "win rate": lambda folder: win_rate_in_child(folder.id, "reward"),
    "reward accuracy": lambda _: reward_accuracy_in_child("reward", "data"),
    "inspect": lambda _: DataProcess("stage: sft\n", *[lambda *_: None] * 4),
    "form": lambda _: JsonCommand("inspect", "stage: sft\n", on_note=print, on_end=print, waiting="")._execute(),
}


@pytest.mark.parametrize("who", STARTS)
def test_it_is_the_same(started, who):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    folder = run()
    with pytest.raises(StartedError):
        STARTS[who](folder)
    (made,) = started
    made.pop(VARIABLE, None)
    assert made.pop("LLF_RUN", None) == (str(folder.path) if who == "trainer" else None)
    of_a_run = who in {"trainer", "losses", "answers", "win rate"}
    assert made == computing_environment(os.environ, 3 if of_a_run else None)
    assert made.items() >= {name: os.environ.get(name, value) for name, value in RUNTIME_VARIABLES.items()}.items()
    for name in THREAD_VARIABLES:
        assert name in os.environ or int(made[name]) == 3 or (not of_a_run and int(made[name]) <= cores)


def test_a_run_that_is_gone_is_told_by_the_process(started):
    with pytest.raises(StartedError):
        losses_in_child("20261124-142530-gone")
    assert len(started) == 1
