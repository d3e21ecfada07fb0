"""What the form's values will train: the servers at once, the table by a process, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llf_core.config import RunConfig
from llf_widgets.forms.json_command import CommandResult
from llf_widgets.forms.studio import Studio
from llf_widgets.forms.trained_parameters import TrainedParameters, _deciding_values
from tests.hostile import evil_model

if TYPE_CHECKING:
    from pathlib import Path


def config(model: Path | str = "smollm2-135m-instruct", **keys: object) -> RunConfig:
    return RunConfig.load({"model_name_or_path": str(model), "dataset": "llf_demo"} | keys)


def report(module: str) -> CommandResult:
    """What the process returns for a model of one module in two layers."""
    states = {"adapter": [[0, 1]]}
    row = {"module": module, "stack": "layers", "states": states, "parameters": 9, "trained": 1, "quantized": False}
    return CommandResult({"rows": [row], "parameters": 9, "trained": 1})


class Commands:
    """Stands in for the process, whose answer a test gives when it likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[Commands.One] = []
        monkeypatch.setattr("llf_widgets.forms.trained_parameters.JsonCommand", self.make)

    class One:
        def __init__(self, name: str, yaml: str, on_note, on_end) -> None:
            self.name, self.yaml, self.on_note, self.on_end = name, yaml, on_note, on_end
            self.cancelled = False

        def start(self) -> None: ...

        def cancel(self) -> None:
            self.cancelled = True

    def make(self, name, yaml, *, on_note, on_end, waiting):
        self.started.append(self.One(name, yaml, on_note, on_end))
        return self.started[-1]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def column(view: TrainedParameters) -> str:
    return view._grid["stacks"][0]["columns"][0]["module"]


def test_servers_follow_each_change(llf_home: Path) -> None:
    view = TrainedParameters()
    view.refresh(config(lora_rank=8))
    assert [one["verdict"] for one in view._servers["verdicts"]] == ["yes", "yes", "yes"]
    view.refresh(config(lora_rank=64))
    assert [one["verdict"] for one in view._servers["verdicts"]] == ["setting", "yes", "yes"]
    view.refresh(config(finetuning_type="full"))
    assert view._servers["whole"]
    view.refresh(None)
    assert view._servers == {}


def test_a_form_with_an_error_has_nothing_to_show(commands: Commands) -> None:
    view = TrainedParameters()
    view.start()
    assert view._messages[0]["level"] == "error"
    assert not commands.started
    view.refresh(config())
    assert view._messages == []


def test_a_table_is_made_once_for_the_same_values(commands: Commands) -> None:
    view = TrainedParameters()
    view.refresh(config(lora_target="q_proj"))
    view.start()
    view.start()
    (one,) = commands.started
    assert one.name == "parameters"
    assert "lora_target: q_proj" in one.yaml
    one.on_note("Reading… 1 s")
    assert (view._state, view._note) == ("running", "Reading… 1 s")
    one.on_end(report("q_proj"))
    assert (view._state, column(view)) == ("done", "q_proj")
    view.refresh(config(lora_target="q_proj", learning_rate=0.5, max_steps=7))  # decides nothing
    assert view._state == "done"
    view.refresh(config(lora_target="v_proj"))
    assert (view._state, view._grid, view._note) == ("idle", {}, "The settings have changed.")
    view.refresh(config(lora_target="q_proj"))  # known
    assert (view._state, column(view)) == ("done", "q_proj")
    view._receive(None, {"type": "hide"}, None)
    view.refresh(config(lora_target="v_proj"))
    assert (view._state, view._note) == ("idle", "")
    assert len(commands.started) == 1


def test_a_result_for_values_of_before_is_kept_and_not_shown(commands: Commands) -> None:
    view = TrainedParameters()
    view.refresh(config(lora_target="q_proj"))
    view.start()
    view.refresh(config(lora_target="v_proj"))
    (old,) = commands.started
    assert old.cancelled
    view.start()
    new = commands.started[1]
    old.on_note("Old")
    old.on_end(CommandResult(cancelled=True))
    assert view._state == "running"
    assert view._note != "Old"
    new.on_end(report("v_proj"))
    assert column(view) == "v_proj"


def test_a_failure_is_told(commands: Commands) -> None:
    view = TrainedParameters()
    view.refresh(config())
    view.start()
    commands.started[0].on_end(CommandResult(error="The file is gone."))
    assert (view._state, view._messages[0]["text"]) == ("idle", "The file is gone.")
    view.start()
    commands.started[1].on_end(CommandResult({"rows": "none"}))
    assert view._messages[0]["text"] == "The process has returned no table. Try again."
    view.start()
    view.cancel()
    commands.started[2].on_end(CommandResult(cancelled=True))
    assert (view._state, view._note, view._messages) == ("idle", "Cancelled.", [])


@pytest.mark.parametrize(
    ("keys", "decides"),
    [({"lora_rank": 4}, True), ({"quantization_bit": 4}, True), ({"use_dora": True}, True),
     ({"neftune_noise_alpha": 5}, True), ({"learning_rate": 0.1}, False), ({"cutoff_len": 99}, False),
     ({"optim": "sgd"}, False)],
)  # fmt: skip
def test_which_values_decide(keys: dict[str, object], decides: bool) -> None:
    assert (_deciding_values(config()) != _deciding_values(config(**keys))) is decides


@pytest.mark.launches
def test_the_table_is_made_by_a_process_of_its_own(tiny_model_dir: Path) -> None:
    studio = Studio({"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "lora_target": "q_proj,v_proj"})
    view = studio._trained
    view.start()
    view.wait()
    assert (view._messages, view._state) == ([], "done")
    (table,) = view._grid["stacks"]
    # Two layers, rank 8: q_proj is 64 to 64, v_proj 64 to 32.
    assert view._grid["share"].startswith(f"{2 * 8 * (64 + 64 + 64 + 32):,} of ")
    cells = dict(zip((one["module"] for one in table["columns"]), table["rows"][0]["cells"], strict=True))
    assert cells["self_attn.q_proj"] == "adapter"
    assert cells["mlp.up_proj"] == "not reached"
    studio.close()


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_it_can_be_cancelled_and_leaves_no_process(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_widgets.forms.json_command._COMMAND", "import time; time.sleep(3600)")  # it does not end
    view = TrainedParameters()
    view.refresh(config(tiny_model_dir))
    view.start()
    view.cancel()
    view.wait()
    assert (view._state, view._note) == ("idle", "Cancelled.")


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_it_runs_no_code_of_a_model_unasked(tiny_model_dir: Path, tmp_path: Path) -> None:
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    evil_model(model, tiny_model_dir, mark)
    view = TrainedParameters()
    view.refresh(config(model, trust_remote_code=True))
    view.start()
    view.wait()
    (message,) = view._messages
    assert "evil.py" in message["text"]
    assert not mark.exists()
