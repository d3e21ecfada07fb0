"""kill -9 of trainer, supervisor, both, kernel or server while a cell's run goes: a true state, and nothing lost."""

import os
import random
import signal
import time
from dataclasses import dataclass

import pytest
from safetensors import safe_open

from llf_core.launch import Run
from llf_core.runs import Checkpoints, RunReader, list_runs, open_run, read_status
from tests.faults.jupyter import notebook_cell, write_config

SEED = int(os.environ.get("LLF_TEST_SEED", time.time_ns() % 1_000_000))
STEPS = 80
SETTINGS = {"max_steps": STEPS, "save_steps": 8, "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 20}
OURS = ("trainer", "supervisor", "both")
THEIRS = ("kernel", "server")
ATTEMPT_SECONDS = 240


@dataclass(frozen=True)
class Moment:
    """Who is killed when.

    Attributes:
        victim: one of `OURS` or `THEIRS`.
        step: from which step on; None is from the launch on, before any step.
        wait: seconds from there.
        in_cell: kill while the cell that starts the run is still at it.
    """

    victim: str
    step: int | None
    wait: float
    in_cell: bool = False

    @classmethod
    def draw(cls, chance, victims):
        """Half of the moments lie in the start, half in the steps; a cell may be killed while it launches."""
        victim = chance.choice(victims)
        phase = chance.choice(("cell", "start", "steps", "steps") if victim in THEIRS else ("start", "steps", "steps"))
        if phase == "steps":
            return cls(victim, chance.randint(1, STEPS - 10), chance.uniform(0, 0.2))
        return cls(victim, None, chance.uniform(0, 1.0 if phase == "cell" else 8.0), phase == "cell")


class Notebook:
    """A server with a kernel, started anew where one of them is gone."""

    def __init__(self, jupyter):
        self._jupyter, self.server, self.kernel = jupyter, None, None

    def ready(self):
        """A kernel that has imported LLF."""
        if self.server is None:
            self.server, self.kernel = self._jupyter(), None
        if self.kernel is None:
            self.kernel = self.server.kernel()
            self.kernel.run("import llf_widgets as llf; llf.train")
        return self.kernel

    def kill(self, victim):
        if victim == "server":
            self.server.kill()
            self.server = None
        else:
            self.kernel.kill()
        self.kernel = None


def losses(folder):
    """Step -> value as hex for both losses: equal means equal to the last bit."""
    columns = RunReader(folder).metrics()
    return {
        name: {
            step: value.hex()
            for step, value in zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True)
        }
        for name in ("loss", "eval_loss")
    }


def start(notebook, config, moment, llf_home):
    """Starts a run from a cell; with `in_cell` the victim is killed while the cell is at it. None: no run was made."""
    kernel = notebook.ready()
    before = {row.id for row in list_runs(llf_home).rows}
    if not moment.in_cell:
        return Run(open_run(kernel.run(notebook_cell(config))))
    cell = kernel.send(notebook_cell(config))
    time.sleep(moment.wait)
    notebook.kill(moment.victim)
    cell.close()
    time.sleep(0.2)
    made = [row.id for row in list_runs(llf_home).rows if row.id not in before]
    assert len(made) <= 1
    return Run(open_run(made[0])) if made else None


def strike(notebook, run, moment):
    """Waits for the moment and kills; returns status and losses just before."""
    until = time.monotonic() + ATTEMPT_SECONDS
    reader = RunReader(run.folder)
    while moment.step is not None and max(reader.metrics().steps("loss"), default=0) < moment.step:
        assert time.monotonic() < until, run.log(30)
        assert not run.status().has_ended, f"{run.status().reason}\n{run.log(30)}"
        time.sleep(0.01)
    time.sleep(moment.wait)
    before, known = read_status(run.folder), losses(run.folder)
    if moment.victim in THEIRS:
        notebook.kill(moment.victim)
        return before, known
    # The trainer first: killed the other way round, it may say its last word between.
    victims = {
        "trainer": [before.trainer],
        "supervisor": [before.supervisor_process],
        "both": [before.trainer, before.supervisor_process],
    }
    for process in victims[moment.victim]:
        if process is not None and process.alive():
            os.kill(process.pid, signal.SIGKILL)
    return before, known


def wait_until_gone(run):
    """Waits until none of the run's processes is left. What is shown meanwhile must fit what lives."""
    until = time.monotonic() + ATTEMPT_SECONDS
    while True:
        stored = read_status(run.folder)
        processes = [process for process in (stored.trainer, stored.supervisor_process) if process is not None]
        alive = [process for process in processes if process.alive()]
        shown = run.status()
        if not alive and (processes or shown.has_ended):
            return run.status()
        if alive and all(process.alive() for process in alive):
            assert shown.state != "lost", "a run that lives was shown as lost"
        assert time.monotonic() < until, f"it stays {shown.state} at step {shown.step}\n{run.log(30)}"
        time.sleep(0.02)


def check_state(final, moment, before):
    """The state that is shown in the end is the true one."""
    if final.state == "finished":
        assert final.step == STEPS
        return
    assert not before.final, f"{before.state} became {final.state}"
    started = before.trainer is not None
    if moment.victim == "trainer":
        assert started, f"nobody was killed, and it is {final.state}: {final.reason}"
        assert (final.state, final.exit_code) == ("failed", -signal.SIGKILL)
        assert "SIGKILL" in final.reason
        assert "resume" in final.reason
    elif moment.victim == "both":
        # Between the two kills the supervisor may have had its say.
        assert final.state == "lost" or "SIGKILL" in final.reason
    elif moment.victim == "supervisor":
        # A trainer that was let go finishes by itself; one that was still at its gate never starts.
        assert final.state == "lost"
        assert before.state in {"created", "starting"}
    else:
        # Only a launch that was cut off before its supervisor lived leaves a run that does not go.
        assert moment.in_cell, f"{final.state}: {final.reason}"
        assert (final.state, final.supervisor) == ("lost", None)


def check_saved(run, before):
    """Every record and every checkpoint that was told of is there, whole."""
    now = losses(run.folder)
    for name, values in before.items():
        assert now[name].items() >= values.items()
    events = run.events()
    announced = {event["step"] for event in events if event["type"] == "checkpoint"}
    removed = {event["step"] for event in events if event["type"] == "checkpoint_removed"}
    checkpoints = Checkpoints(run.folder)
    whole = set(checkpoints.list())
    assert set(sorted(announced)[-2:]) <= whole
    assert not removed & whole
    for step in whole:
        with safe_open(checkpoints.path(step) / "adapter_model.safetensors", "pt") as weights:
            assert all(weights.get_tensor(name).isfinite().all() for name in weights.keys())  # noqa: SIM118 - no mapping


def check_resume(run, expected):
    """Resumed where it has not finished, it makes the very losses of the run that nobody touched."""
    if run.state != "finished":
        run.resume()
        final = run.wait(ATTEMPT_SECONDS, progress=False)
        assert final.state == "finished", f"{final.reason}\n{run.log(30)}"
        wait_until_gone(run)
    assert losses(run.folder) == expected
    assert (run.output / "adapter_model.safetensors").is_file()
    assert list(run.folder.control.iterdir()) == []


@pytest.fixture
def scene(jupyter, settings, trained, tmp_path):
    """The notebook, the config that its cells start, and the losses of the run that nobody touches."""
    asked = settings | SETTINGS | {"threads": 1}
    folder, code = trained(**asked)
    assert code == 0
    return Notebook(jupyter), write_config(tmp_path, asked), losses(folder)


def at(moments, scene, llf_home):
    """Runs one run a moment; prints what became of each."""
    notebook, config, expected = scene
    for moment in moments:
        run = start(notebook, config, moment, llf_home)
        if run is None:
            print(f"{moment}: no run was made")
            continue
        before, known = (read_status(run.folder), {}) if moment.in_cell else strike(notebook, run, moment)
        final = wait_until_gone(run)
        made = len(known.get("loss", ()))
        print(f"{moment}: {before.state}, {made} steps made -> {final.state} at step {final.step}: {final.reason}")
        check_state(final, moment, before)
        check_saved(run, known)
        check_resume(run, expected)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(900)
def test_two_random_moments(scene, llf_home):
    print(f"LLF_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    at([Moment.draw(chance, OURS), Moment.draw(chance, THEIRS)], scene, llf_home)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch", range(5))
def test_ten_random_moments_five_times(scene, llf_home, batch):
    print(f"LLF_TEST_SEED={SEED}")
    chance = random.Random(f"{SEED} {batch}")
    at([Moment.draw(chance, OURS + THEIRS) for _ in range(10)], scene, llf_home)
