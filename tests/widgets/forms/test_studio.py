"""The form as its front end drives it: by messages, without a kernel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ipywidgets.widgets.widget import _instances

from llf_core.config import ConfigError, RunConfig, fields
from llf_core.config.field_specs import USED_BY_OTHERS
from llf_core.estimate.past_runs import PastRun, add_past_run
from llf_core.launch.start import write_rows
from llf_core.runs import create_run, status
from llf_widgets.forms import Studio, preflight
from llf_widgets.forms.messages import Message

if TYPE_CHECKING:
    from tests.widgets.forms.conftest import Launches


def tell(widget: Any, **content: Any) -> None:
    """What the front end sends."""
    widget._handle_custom_msg(content, [])


def row(studio: Studio, key: str) -> dict[str, Any]:
    return next(one for section in studio._sections.values() for one in section._rows if one["key"] == key)


def section(studio: Studio, key: str) -> Any:
    return next(one for one in studio._sections.values() if one.contains(key))


def type_into(studio: Studio, key: str, text: str) -> None:
    tell(section(studio, key), type="edit", key=key, text=text)


def test_every_field_is_in_one_section(studio: Studio) -> None:
    for spec in fields():
        shown = spec.section not in USED_BY_OTHERS  # a form starts runs, and these concern none
        assert sum(one.contains(spec.key) for one in studio._sections.values()) == shown, spec.key


def test_basic_fields_are_shown_and_the_others_counted(studio: Studio) -> None:
    training = studio._sections["Training"]
    shown = {one["key"] for one in training._rows}
    assert {"learning_rate", "num_train_epochs", "seed"} <= shown
    assert "adam_beta1" not in shown
    training._expanded = True
    opened = {one["key"] for one in training._rows}
    assert "adam_beta1" in opened
    assert len(opened) == len(shown) + training._hidden_count
    assert row(studio, "adam_beta1")["group"] == "Optimizer"


def test_error_stands_beside_its_field_and_start_names_it(studio: Studio) -> None:
    assert studio._start.ready
    type_into(studio, "learning_rate", "fast")
    (message,) = row(studio, "learning_rate")["messages"]
    assert message["level"] == "error"
    assert not studio._start.ready
    words = "".join(part["text"] for part in studio._start._sentence)
    assert words == "To start, fix 1 error: Learning rate, in Training."
    assert [part["key"] for part in studio._start._sentence if "key" in part] == ["learning_rate"]
    with pytest.raises(ConfigError):
        _ = studio.config


def test_fix_button_mends(studio: Studio) -> None:
    type_into(studio, "learning_rate", "fast")
    tell(section(studio, "learning_rate"), type="fix", key="learning_rate", message=0, fix=0)
    assert studio._start.ready
    assert row(studio, "learning_rate")["messages"] == []


def test_field_behind_the_button_shows_itself_when_it_is_wrong(studio: Studio) -> None:
    type_into(studio, "adam_beta1", "7")
    assert row(studio, "adam_beta1")["messages"][0]["level"] == "error"
    assert not studio._sections["Training"]._expanded


def test_going_to_a_field_opens_its_section_and_asks_for_the_focus(studio: Studio) -> None:
    tell(studio._start, type="focus_field", key="adam_beta1")
    training = studio._sections["Training"]
    assert training._expanded
    assert training._focus["key"] == "adam_beta1"


def test_options_of_another_method_are_hidden(studio: Studio) -> None:
    type_into(studio, "finetuning_type", "freeze")
    method = studio._sections["Method"]
    assert "lora_rank" not in {one["key"] for one in method._rows}
    method._expanded = True
    keys = {one["key"] for one in method._rows}
    assert "freeze_trainable_layers" in keys
    assert "lora_alpha" not in keys


def test_what_differs_from_the_preset_is_marked_and_undone(studio: Studio) -> None:
    type_into(studio, "cutoff_len", "512")
    assert row(studio, "cutoff_len")["changed"]
    assert studio._presets._changes == 1
    tell(studio._presets, type="reset")
    assert row(studio, "cutoff_len")["text"] == "256"
    assert studio._presets._changes == 0


def test_a_config_of_the_cell_is_no_preset() -> None:
    studio = Studio({"dataset": "llf_demo", "max_steps": 5})
    assert studio._presets._current == ""
    assert studio._presets._label == "First minute"
    assert studio._presets._changes > 0
    tell(studio._presets, type="preset", name="first-minute")
    assert studio._presets._current == "first-minute"
    assert studio._presets._changes == 0


def test_steps_are_said_to_override_the_epochs(studio: Studio) -> None:
    assert "Steps override Epochs: ends after 30 steps" in studio._sections["Training"]._facts
    type_into(studio, "max_steps", "")
    assert studio._sections["Training"]._facts == ["4 examples per step"]
    assert row(studio, "max_steps")["placeholder"] == "all epochs"


def test_a_form_that_is_closed_leaves_nothing_behind() -> None:
    Studio().close()  # what is made once a process
    before = set(_instances)
    Studio().close()
    assert set(_instances) <= before


def test_preset_fills_the_form(studio: Studio) -> None:
    tell(studio._presets, type="preset", name="full")
    assert row(studio, "finetuning_type")["text"] == "full"
    assert row(studio, "learning_rate")["text"] == "1e-5"
    assert studio._presets._current == "full"


def test_form_follows_pasted_text(studio: Studio) -> None:
    tell(studio._text, type="paste", text="dataset: llf_demo\nlora_rank: 32\nfinetuning_type: lora\n")
    assert row(studio, "lora_rank")["text"] == "32"
    assert "lora_rank: 32" in studio._text._yaml


def test_pasted_key_that_is_unknown_is_renamed_by_the_button(studio: Studio) -> None:
    tell(studio._text, type="paste", text="dataset: llf_demo\nlora_rnak: 32\n")
    (message,) = studio._text._messages
    assert "lora_rnak" in message["text"]
    assert "Line 2" in message["text"]
    assert not studio._start.ready
    tell(studio._text, type="fix", message=0, fix=0)
    assert row(studio, "lora_rank")["text"] == "32"
    assert studio._start.ready


def test_text_that_cannot_be_read_stays_with_its_reason_until_the_form_is_edited(studio: Studio) -> None:
    tell(studio._text, type="paste", text="dataset: [llf_demo\n")
    assert studio._text._invalid_text == "dataset: [llf_demo\n"
    assert studio._text._messages[0]["level"] == "error"
    assert not studio._start.ready
    type_into(studio, "lora_rank", "16")
    assert studio._text._invalid_text == ""
    assert studio._text._messages == []
    assert studio._start.ready


def test_start_launches_what_the_form_says_and_shows_the_monitor(studio: Studio, launches: Launches) -> None:
    type_into(studio, "learning_rate", "2e-4")
    studio._start._name = "my run"
    tell(studio._start, type="start")
    assert [config.optimizer.learning_rate for config in launches] == [2e-4]
    assert launches.name == "my run"
    assert studio.run is not None
    assert type(studio.children[2].children[0]).__name__ == "Monitor"
    assert studio.run.id in "".join(part["text"] for part in studio._start._sentence)


def test_double_click_starts_one_run(studio: Studio, launches: Launches) -> None:
    tell(studio._start, type="start")
    tell(studio._start, type="start")
    assert len(launches) == 1


def test_another_run_can_be_started_when_it_is_asked_for(studio: Studio, launches: Launches) -> None:
    tell(studio._start, type="start")
    tell(studio._start, type="focus_field", key=studio._start._sentence[1]["key"])
    tell(studio._start, type="start")
    assert len(launches) == 2


def test_queue_is_offered_where_something_goes(studio: Studio, launches: Launches) -> None:
    assert not studio._start._busy
    assert studio._start._messages == []
    folder = create_run("stage: sft\n", "goes already")
    tell(studio._start, type="start")
    assert (studio._start._busy, studio._start._messages) == (False, [])  # there is nothing left to be decided
    tell(studio._start, type="focus_field", key=studio._start._sentence[1]["key"])
    assert studio._start._busy
    assert "Another run uses this device: " in studio._start._messages[0]["text"]
    tell(studio._start, type="queue")
    assert launches.queue
    assert studio.run is not None
    assert studio._start._sentence[0]["text"] == f"`{studio.run.id}` is in the queue. "
    studio.run.folder.queue.unlink()
    status.update(folder, state="failed", reason="It was.")
    studio.refresh()
    assert studio._start._sentence[0]["text"] == f"Started `{studio.run.id}`. "


def end_polling(studio: Studio) -> None:
    """Ends the thread that checks the machine, which would find a change before the test does."""
    studio._machine.stop()
    assert studio._machine._poller.join(60)


def test_note_of_another_run_goes_when_it_ends(studio: Studio) -> None:
    folder = create_run("stage: sft\n", "goes already")
    studio._machine.state(fresh=True)
    studio.refresh()
    assert studio._machine._poller.is_alive
    assert studio._start._busy
    end_polling(studio)
    status.update(folder, state="failed", reason="It was.")
    assert studio._machine._poll() is None
    assert not studio._start._busy
    assert studio._start._messages == []


def test_a_form_that_is_closed_during_a_check_ends_its_thread(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    create_run("stage: sft\n", "goes already")
    checks, inside, go_on = studio._machine, threading.Event(), threading.Event()
    ahead = checks._load.ahead

    def slow() -> Any:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert go_on.wait(60)
        return ahead()

    monkeypatch.setattr(checks._load, "ahead", slow)
    checks.state(fresh=True)
    assert inside.wait(60)
    studio.close()
    go_on.set()
    assert checks._poller.join(10)


def test_note_of_another_run_follows_its_steps(studio: Studio) -> None:
    folder = create_run("stage: sft\n", "goes already")
    status.update(folder, step=1, total=30)
    studio._machine.state(fresh=True)
    studio.refresh()
    assert "goes already (step 1 of 30)" in studio._start._messages[0]["text"]
    end_polling(studio)
    status.update(folder, step=3)
    assert studio._machine._poll() is not None
    assert "goes already (step 3 of 30)" in studio._start._messages[0]["text"]


def test_forecast_follows_the_measurements_of_a_run_that_ended(studio: Studio) -> None:
    def seconds() -> float:
        return float(studio._fit._fit["time"]["step_seconds"])

    before, device = seconds(), studio._fit._fit["devices"][0]["device"]
    folder = create_run("stage: sft\n", "goes already")
    studio._machine.state(fresh=True)
    add_past_run(
        PastRun(
            time=time.time(), device=device, method="lora adamw_torch", stage="sft", parameters=134_515_008,
            tokens=200.0, checkpointing=False, uncorrected_seconds=1.0, seconds=50.0,
        )
    )  # fmt: skip
    end_polling(studio)
    studio._machine._poll()
    assert seconds() == before  # it has not ended
    end_polling(studio)
    status.update(folder, state="failed", reason="It was.")
    studio._machine.state(fresh=True)  # as Start looks
    studio._machine._poll()
    assert seconds() > 5 * before


def test_name_is_made_of_the_config_unless_it_is_given(studio: Studio, launches: Launches) -> None:
    studio.start()
    assert launches.name == "smollm2-135m-instruct-sft-lora"


def test_tokens_are_scrolled_to(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(studio._start, "send", sent.append)
    tell(studio._preview, type="inspect")
    assert sent == [{"type": "reveal", "part": "llf-Inspect"}]
    studio.close()


def test_failing_launch_is_told_beside_start(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("llf_core.launch.launch", fail)
    tell(studio._start, type="start")
    assert studio.run is None
    assert studio._start._messages[0]["text"] == "No space left on device"
    assert studio._start.ready


def test_nothing_starts_where_this_machine_cannot_train(
    studio: Studio, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        preflight, "check_packages", lambda: Message("error", "Training needs `torch`.", copy="pip install torch")
    )
    with pytest.raises(RuntimeError, match="torch"):
        studio.start()
    assert launches == []
    assert not studio._start.ready
    assert studio._start._messages[0]["copy"] == "pip install torch"


def test_code_can_set_fields(studio: Studio) -> None:
    studio.set(learning_rate=3e-4, lora_rank=4)
    assert isinstance(studio.config, RunConfig)
    assert studio.config.get("lora_rank") == 4
    assert row(studio, "learning_rate")["text"] == "3e-4"
    with pytest.raises(KeyError, match="lora_rnak"):
        studio.set(lora_rnak=1)


def test_earlier_run_fills_the_form(studio: Studio) -> None:
    studio.set(lora_rank=64)
    run = studio.start()
    fresh = Studio()
    tell(fresh._presets, type="runs")
    assert [one[0] for one in fresh._presets._runs] == [run.id]
    tell(fresh._presets, type="run", id=run.id)
    assert fresh.state.value("lora_rank") == 64


def test_saved_notebook_says_what_was_configured_and_escapes_it(studio: Studio) -> None:
    studio.set(default_system="<script>alert(1)</script> & co")
    bundle = studio._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "<script>" not in bundle["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in bundle["text/html"]
    assert "model_name_or_path: smollm2-135m-instruct" in bundle["text/plain"]


def test_form_opens_without_the_large_libraries(tmp_path: Path) -> None:
    code = (
        "import json, sys, llf_widgets as llf\n"
        "llf.Studio()\n"
        "print(json.dumps([m for m in ('torch','transformers','datasets','pandas','plotly') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == []


def test_earlier_run_that_is_gone_or_no_config_is_told(studio: Studio) -> None:
    before = studio.state.yaml()
    broken = create_run("a: [1\n", "broken")
    for run_id, said in (
        ("20260101-000000-gone", "No run 20260101-000000-gone"),
        (broken.id, "cannot be read at line"),
    ):
        tell(studio._presets, type="run", id=run_id)
        assert studio._start._messages[0]["level"] == "error"
        assert said in studio._start._messages[0]["text"]
        assert studio.state.yaml() == before


def test_rows_of_an_earlier_run_are_found_in_its_folder(studio: Studio) -> None:
    run = create_run("dataset: data/rows-0123456789abcdef.parquet\n", "rows")
    run.data.mkdir()
    write_rows([{"instruction": "a", "output": "b"}], run.data)[0].rename(run.data / "rows-0123456789abcdef.parquet")
    tell(studio._presets, type="run", id=run.id)
    assert studio.state.value("dataset") == str(run.data / "rows-0123456789abcdef.parquet")
    assert studio.state.errors() == ()


@pytest.mark.usefixtures("launches")
def test_a_model_with_a_file_that_leads_nowhere_has_no_facts(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (model / "more.safetensors").symlink_to("/nonexistent")
    studio = Studio({"dataset": "llf_demo", "model_name_or_path": str(model)})
    assert studio._sections["Model"]._facts == []
    type_into(studio, "learning_rate", "2e-4")
    assert studio.state.value("learning_rate") == 2e-4
