"""The section *Where*: places that cannot be used, the one that is asked, strategies, and the text of `on`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import llf_core.launch
from llf_core.config.field_specs import field
from llf_core.config.sections import STRATEGIES
from llf_core.launch.launchers import LAUNCHERS, keys_of_place, launcher, place_of
from llf_widgets.forms import Studio
from tests.widgets.forms.test_studio import row, section, tell, type_into

if TYPE_CHECKING:
    from pathlib import Path

    from tests.widgets.forms.conftest import Launches


class Programs:
    """A folder that is the whole PATH; each program in it writes down its arguments, waits for `answer`, and fails."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.answer = folder, folder / "calls", folder / "answer"

    def add(self, *names: str) -> None:
        script = f'echo "$0 $*" >> {self.calls}\nwhile [ ! -e {self.answer} ]; do /bin/sleep 0.02; done\n'
        for name in names:
            program = self.folder / name
            program.write_text(f"#!/bin/sh\n{script}echo '{name}: box is switched off' >&2\nexit 255\n")
            program.chmod(0o755)

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def wait(self) -> None:
        until = time.monotonic() + 60
        while not self.called():
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Programs(folder)


def keys(studio: Studio) -> set[str]:
    return {one["key"] for one in studio._sections["Where"]._rows}


def reasons(studio: Studio, key: str) -> dict[str, str]:
    return {value: reason for value, _, reason, _ in row(studio, key)["choices"] if reason}


def facts(studio: Studio) -> list[str]:
    return list(studio._sections["Where"]._facts)


def test_places_that_this_machine_cannot_use_are_greyed_and_asked_nothing(programs: Programs, studio: Studio) -> None:
    choices = row(studio, "launch")["choices"]
    assert [value for value, *_ in choices] == list(LAUNCHERS)
    assert all(line == f"{label}: {LAUNCHERS[value].summary}" for value, line, _, label in choices)
    found = reasons(studio, "launch")
    assert found["slurm"].startswith("Slurm's sbatch is not on this machine.")
    assert found["ssh"] == "ssh is not on this machine. Install an OpenSSH client."
    assert "local" not in found
    assert "torchrun" not in found
    programs.add("ssh", "sbatch", "sinfo")
    type_into(studio, "learning_rate", "1e-4")
    assert not {"ssh", "slurm"} & set(reasons(studio, "launch"))
    assert programs.called() == []


def test_a_place_is_asked_in_a_thread_once_its_field_is_left(programs: Programs, studio: Studio) -> None:
    programs.add("ssh")
    type_into(studio, "launch", "ssh")
    studio._places.join(60)
    assert programs.called() == []  # there is no host to ask
    assert "needs a host" in row(studio, "launch")["messages"][-1]["text"]
    assert row(studio, "launch_target")["placeholder"] == "[USER@]HOST[:PORT]"
    for text in ("b", "bo", "box"):
        tell(section(studio, "launch_target"), type="type", key="launch_target", text=text)
    assert programs.called() == []
    type_into(studio, "launch_target", "box")
    programs.wait()  # the form has answered while ssh still waits
    assert facts(studio) == ['on="ssh://box"', "Asking box…"]
    assert row(studio, "launch")["messages"][0]["level"] == "note"  # of the forecast
    type_into(studio, "learning_rate", "1e-4")
    programs.answer.touch()
    studio._places.join(60)
    (call,) = programs.called()
    assert " box " in call
    (said, forecast) = sorted(row(studio, "launch")["messages"], key=lambda one: one["level"] == "note")
    assert said["level"] == "warning"  # Start asks again
    assert "box is switched off" in said["text"]
    assert "for this machine" in forecast["text"]
    assert facts(studio) == ['on="ssh://box"']
    assert studio._start.ready


def test_a_place_that_answers_is_ready(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_widgets.forms.places.launch_problem", lambda _: None)
    studio.set(launch="slurm", launch_target="short")
    studio._places.join(60)
    assert facts(studio) == ['on="slurm:short"', "short is ready"]


def test_fields_are_shown_where_they_matter(studio: Studio) -> None:
    assert keys(studio) == {"launch", "num_processes"}
    type_into(studio, "num_processes", "2")
    assert keys(studio) == {"launch", "num_processes", "strategy"}
    type_into(studio, "launch", "torchrun")
    assert keys(studio) == {"launch", "launch_target", "num_processes", "num_nodes", "strategy"}
    studio.set(launch_target="10.0.0.1:29500", num_nodes=2, per_device_train_batch_size=4)
    assert "16 examples per step" in studio._sections["Training"]._facts
    type_into(studio, "launch", "local")  # its target and machines belonged to the other place
    assert keys(studio) == {"launch", "num_processes", "strategy"}
    assert "launch" not in studio.state.yaml()
    assert "num_nodes" not in studio.state.yaml()
    assert studio.state.config is not None


def test_strategies_say_what_they_save_and_cost_and_why_not(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = field("strategy")
    assert spec is not None
    assert spec.choices == tuple(STRATEGIES)
    assert all(one.summary.startswith("Saves ") and "Costs" in one.summary for one in STRATEGIES.values())
    monkeypatch.setattr("llf_widgets.forms.places.gpu_count", lambda: 0)
    type_into(studio, "num_processes", "2")
    ddp = STRATEGIES["ddp"]
    assert row(studio, "strategy")["help"] == f"{ddp.summary} {ddp.on_cpu}"
    assert reasons(studio, "strategy") == {}
    monkeypatch.setattr("llf_widgets.forms.places.gpu_count", lambda: 2)
    assert row(studio, "num_processes")["messages"] == []
    studio.set(lora_init="pissa")
    assert row(studio, "strategy")["help"] == ddp.summary
    assert "FSDP2 trains plain LoRA so far" in reasons(studio, "strategy")["fsdp2"]


@pytest.mark.parametrize(
    ("chosen", "on"),
    [
        ({"num_processes": 1}, "1 process"),
        ({"num_processes": 2}, "2 processes"),
        ({"launch": "ssh", "launch_target": "me@box:2222"}, "ssh://me@box:2222"),
        ({"launch": "slurm"}, "slurm"),
        ({"launch": "slurm", "launch_target": "short"}, "slurm:short"),
        ({"launch": "torchrun", "launch_target": "10.0.0.1:29500"}, "torchrun:10.0.0.1:29500"),
    ],
)
def test_the_text_of_on_means_what_the_form_has(chosen: dict[str, Any], on: str) -> None:
    studio = Studio({"dataset": "llf_demo"} | chosen)
    assert facts(studio)[0] == f'on="{on}"'
    config = studio.state.report.config
    assert config is not None
    assert place_of(config) == on
    assert {key: config.get(key) for key in keys_of_place(on)} == keys_of_place(on)


def test_too_many_processes_for_the_gpus_are_an_error_beside_the_field(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "gpu_count", lambda: 1)
    type_into(studio, "num_processes", "2")
    assert "this machine has 1 GPU" in row(studio, "launch")["messages"][0]["text"]
    assert not studio._start.ready


def test_a_start_elsewhere_leaves_the_kernel_free(
    studio: Studio, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llf_widgets.forms.places.launch_problem", lambda _: None)
    started, go_on = threading.Event(), threading.Event()
    create = llf_core.launch.launch

    def launch(*given: Any, **more: Any) -> Any:
        started.set()
        assert go_on.wait(60)
        return create(*given, **more)

    monkeypatch.setattr(llf_core.launch, "launch", launch)
    studio.set(launch="slurm")
    tell(studio._start, type="start")
    assert started.wait(60)
    assert launches == []
    assert not studio._start.ready
    assert studio._start._sentence == [{"text": "Starting…"}]
    tell(studio._start, type="start")
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "llf-form-start":
            thread.join(60)
    assert [one.launch.launch for one in launches] == ["slurm"]
    assert studio.run is not None
    assert studio._start._sentence[0]["text"].startswith("Started ")


def test_a_host_that_a_run_is_sent_to_needs_nothing_of_this_machine(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llf_widgets.forms.places.launch_problem", lambda _: None)
    monkeypatch.setattr("llf_widgets.forms.preflight.TRAINING_PACKAGES", ("llf_missing",))
    monkeypatch.setattr("llf_widgets.forms.preflight.check_packages.__defaults__", (("llf_missing",),))
    assert "llf_missing" in " ".join(studio._machine.state(fresh=True).errors)
    studio.set(launch="ssh", launch_target="box")
    assert studio._machine.state(fresh=True).errors == []
