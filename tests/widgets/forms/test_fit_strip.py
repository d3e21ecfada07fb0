"""The forecast in the form: it follows the values, its buttons change them and are undone, bad files are a sentence."""

import json
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from llf_core.estimate import Device, fit_check
from llf_widgets.forms import Studio
from llf_widgets.forms.fit_strip import INVALID, Measurement

SIZES = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def seven_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of 7 B that is not there, on a GPU of 16 GB that is not there either."""
    gpu = Device("cuda", "NVIDIA A10", 16 << 30, 16 << 30, bf16=True)
    monkeypatch.setattr(fit_check, "find_devices", lambda: (gpu,))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(SIZES))
    return str(tmp_path / "model")


def strip(studio: Studio):
    return studio._fit


def test_the_forecast_follows_the_values() -> None:
    studio = Studio()
    before = strip(studio)._fit["memory"]
    assert before["total"] == sum(size for name, size in before.items() if name != "total")
    studio.set(lora_rank=64)
    assert strip(studio)._fit["memory"]["adapters"] == 8 * before["adapters"]
    studio.set(max_steps=7)
    assert strip(studio)._fit["time"]["steps"] == 7
    studio.set(lora_rank="many")
    assert strip(studio)._message == INVALID
    assert not strip(studio)._ready
    studio.set(lora_rank=8)
    assert strip(studio)._message == ""
    assert strip(studio)._fit["memory"] == before
    studio.close()


def test_a_model_that_does_not_exist_has_no_forecast() -> None:
    studio = Studio()
    studio.set(model_name_or_path="smollm2-135m-instrct")
    assert "smollm2-135m-instruct" in str(studio.state.problems("model_name_or_path")[0].message)
    assert (strip(studio)._fit, strip(studio)._message) == ({}, INVALID)
    studio.set(model_name_or_path="smollm2-135m-instruct")
    assert strip(studio)._fit["memory"]["total"] > 0
    studio.close()


def test_a_value_counts_while_it_is_typed_and_the_form_keeps_its_own() -> None:
    studio = Studio()
    before = strip(studio)._fit["memory"]["adapters"]
    section = next(one for one in studio._sections.values() if one.contains("lora_rank"))
    section._receive(section, {"type": "type", "key": "lora_rank", "text": "16"}, [])
    assert strip(studio)._fit["memory"]["adapters"] == 2 * before
    assert studio.config.get("lora_rank") == 8
    for half in ("", "1e", "-", "16 or"):
        section._receive(section, {"type": "type", "key": "lora_rank", "text": half}, [])
        assert strip(studio)._message == ""
    section._receive(section, {"type": "edit", "key": "lora_rank", "text": "8"}, [])
    assert strip(studio)._fit["memory"]["adapters"] == before
    studio.close()


def test_one_click_makes_it_fit_and_another_undoes_it(seven_b: str) -> None:
    studio = Studio({"model_name_or_path": seven_b, "dataset": "llf_demo", "lora_rank": 64, "cutoff_len": 512})
    shown = strip(studio)._fit
    assert shown["fits"] is False
    index = next(i for i, one in enumerate(shown["changes"]) if "quantization_bit" in one["changes"])
    strip(studio)._receive(None, {"type": "apply", "index": index}, [])
    assert studio.config.model.quantization_bit in {4, 8}
    assert strip(studio)._fit["fits"] is True
    assert strip(studio)._undo == "Undo “Quantize the frozen weights”"
    studio.set(max_steps=5)
    strip(studio)._receive(None, {"type": "undo"}, [])
    assert studio.config.model.quantization_bit is None
    assert studio.config.training.max_steps == 5
    assert strip(studio)._undo == ""
    strip(studio)._receive(None, {"type": "apply", "index": 99}, [])
    strip(studio)._receive(None, {"type": "undo"}, [])
    assert studio.config.model.quantization_bit is None
    studio.close()


def test_absurd_sizes_are_a_sentence(seven_b: str) -> None:
    (Path(seven_b) / "config.json").write_text(json.dumps({**SIZES, "num_hidden_layers": 10**9}))
    studio = Studio({"model_name_or_path": seven_b, "dataset": "llf_demo"})
    assert "`num_hidden_layers` in the model's config.json is 1000000000" in strip(studio)._message
    assert strip(studio)._fit == {}
    studio.close()


def test_an_update_takes_less_than_a_tenth_of_a_second(seven_b: str) -> None:
    studio = Studio({"model_name_or_path": seven_b, "dataset": "llf_demo"})
    section = next(one for one in studio._sections.values() if one.contains("lora_rank"))
    taken = []
    for rank in range(1, 12):
        start = time.process_time()
        section._receive(section, {"type": "type", "key": "lora_rank", "text": str(rank)}, [])
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1
    studio.close()


def test_a_measurement_corrects_the_forecast(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "output": "one two three " * (n % 5 + 1)} for n in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    studio = Studio(
        {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "use_cpu": True,
         "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_train_epochs": 1}
    )  # fmt: skip
    assert "no run on this device" in strip(studio)._fit["time"]["basis"]
    strip(studio)._receive(None, {"type": "measure"}, [])
    assert strip(studio)._measuring
    strip(studio).wait()
    assert strip(studio)._note == "Measured. The forecast is from these steps."
    assert not strip(studio)._measuring
    found = strip(studio)._fit
    assert "one past run" in found["time"]["basis"]
    assert found["time"]["steps"] == 20
    assert found["basis"][1].startswith("Lengths of the examples as a run of")
    assert list((tmp_path / "llf-home").glob("runs/*")) == []
    studio.close()


def test_a_measurement_that_fails_says_why_and_one_can_be_cancelled(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"instruction": "Hello?", "output": "Yes."}] * 8
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = {"model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "use_cpu": True}
    studio = Studio(config)
    (tmp_path / "rows.json").write_text("[]")
    strip(studio).measure()
    strip(studio).wait()
    assert strip(studio)._note.startswith("The measurement failed: ")
    assert "rows.json" in strip(studio)._note
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        strip(studio).measure()
        strip(studio).wait()
    assert strip(studio)._note == "The measurement failed: No such file or directory."
    assert not strip(studio)._measuring
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    strip(studio).measure()
    strip(studio).cancel()
    strip(studio).wait()
    assert strip(studio)._note == "Measurement cancelled."
    studio.close()


@pytest.mark.launches
@pytest.mark.parametrize("killed", [False, True])
def test_a_measurement_that_is_cancelled_or_killed_leaves_no_files(
    killed: bool, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    ends: list[str] = []
    measurement = Measurement(lambda _: None, ends.append)
    measurement.start(f"model_name_or_path: {tiny_model_dir}\ndataset: llf_demo\nuse_cpu: true\n")
    until = time.monotonic() + 240
    while len([*place.rglob("llf-measure-*")]) < 2:  # its own and that of the process
        assert time.monotonic() < until, ends
        time.sleep(0.01)
    if killed:
        os.kill(measurement._process.pid, signal.SIGKILL)
    else:
        measurement.cancel()
    measurement.wait()
    assert len(ends) == 1
    assert [*place.rglob("llf-measure-*")] == []


def test_a_measurement_of_text_that_no_file_holds_ends_with_a_sentence() -> None:
    ends: list[str] = []
    measurement = Measurement(lambda _: None, ends.append)
    measurement.start("dataset: \udc80\n")
    measurement.wait()
    assert ends == ["The measurement failed: character 10 of the config is a lone surrogate, which UTF-8 cannot hold."]
