"""Lengths from text against those that a tokenizer counts, and files that tell nothing."""

import json
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.data.text_lengths import MOST_RECORDS, estimate, lengths_from_text


def config(dataset: object, **more: object) -> RunConfig:
    return RunConfig.load({"dataset": dataset, **more})


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_demo_is_counted_within_a_fifth_of_the_tokenizer() -> None:
    from llf_core.data import prepare
    from llf_core.models import load_tokenizer, resolve_model

    demo = config("llf_demo")
    source = resolve_model(demo.model.model_name_or_path, demo)
    counts = prepare(demo, load_tokenizer(source, demo)).counts[:, 2]
    found = lengths_from_text(demo)
    assert found is not None
    assert found.examples == len(counts)
    assert found.mean(2048) == pytest.approx(counts.mean(), rel=0.2)
    assert found.longest(2048) == pytest.approx(counts.max(), rel=0.2)
    assert "all 195 records" in found.basis


def test_pairs_are_two_sequences_of_a_record() -> None:
    found = lengths_from_text(config("llf_demo_pairs", stage="dpo"))
    assert found is not None
    assert found.examples == 48
    assert len(found.lengths) == 96


def test_of_a_long_file_the_number_of_records_follows_from_its_size(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "output": "word " * (20 + n % 7)} for n in range(5 * MOST_RECORDS)]
    found = lengths_from_text(config(write(tmp_path / "long.jsonl", rows)))
    assert found is not None
    assert found.examples == pytest.approx(5 * MOST_RECORDS, rel=0.1)
    assert f"the first {MOST_RECORDS:,} records" in found.basis
    few = lengths_from_text(config(str(tmp_path / "long.jsonl"), max_samples=100))
    assert few is not None
    assert few.examples == 100


def test_an_empty_file_of_a_folder_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    (tmp_path / "b.json").write_text(json.dumps([{"instruction": "Hello?", "output": "Yes."}] * 3))
    found = lengths_from_text(config(str(tmp_path)))
    assert found is not None
    assert found.examples == 3


def test_examples_that_are_held_out_are_not_trained_on(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"instruction": f"Say {n}.", "output": "Yes."} for n in range(40)]
    path = write(tmp_path / "rows.jsonl", rows)
    two = f"{path},{write(tmp_path / 'other.jsonl', rows)}"
    for data, keys, examples in (
        (path, {"val_size": 0.1}, 36), (path, {"val_size": 5}, 35), (path, {"val_size": 0.001}, 39),
        (path, {"max_samples": 10, "val_size": 0.5}, 5), (two, {"max_samples": 10}, 20), (path, {"val_size": 40}, 1),
    ):  # fmt: skip
        found = lengths_from_text(config(data, **keys))
        assert found is not None
        assert found.examples == examples, keys
        assert estimate(config(data, **keys, per_device_train_batch_size=1, gradient_accumulation_steps=1,
                               num_train_epochs=1)).duration.steps == examples  # fmt: skip


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row: dict[str, object] = {"instruction": "Hello?", "output": "Yes."}
    one = lengths_from_text(config(write(path, [row] * 3)))
    two = lengths_from_text(config(write(path, [row] * 40)))
    assert one is not None
    assert two is not None
    assert (one.examples, two.examples) == (3, 40)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}\n', "\0\0\0", "[]"])
def test_data_that_cannot_be_read_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    assert lengths_from_text(config(str(tmp_path / "rows.jsonl"))) is None
    assert lengths_from_text(config("someone/on-the-hub")) is None
    assert lengths_from_text(config(str(tmp_path / "missing.jsonl"))) is None


def test_a_forecast_takes_a_dict_and_uses_the_text() -> None:
    found = estimate({"dataset": "llf_demo", "max_steps": 3})
    assert found.memory is not None
    assert found.duration is not None
    assert found.duration.steps == 3
    assert any("all 195 records" in sentence for sentence in found.basis)
