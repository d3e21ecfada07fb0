"""The benchmark on a card: what is measured first, what a contender is asked, what is kept, and what it comes to."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_cells, gpu_rows, models, processes, report_gpu
from benchmarks.contender import settings_file
from benchmarks.gpu_cells import CELLS, SHAPES, TINY, Cell, Place, sft
from benchmarks.pairs import split
from llf_core.config import RunConfig

ROWS = {"rows": 40, "batch": 2, "tokens": 1000, "trained_tokens": 750, "context": 100.0}


def test_the_most_valuable_comes_first_and_a_second_round_counts_as_the_next_tier():
    first, second, last = sft(1, "7b", 2048), sft(2, "1b", 512), sft(4, "135m", 512)
    turns = [(cell.size, number) for cell, number in gpu_cells.schedule([last, second, first], 3)]
    assert turns == [
        ("7b", 0), ("7b", 1), ("1b", 0), ("7b", 2), ("1b", 1), ("1b", 2), ("135m", 0), ("135m", 1), ("135m", 2),
    ]  # fmt: skip


def test_every_cell_that_is_wanted_is_there_once():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    of_sft = {(cell.size, cell.length, cell.packed) for cell in CELLS if cell.kind == "sft" and not cell.paper}
    assert of_sft == {(size, length, packed) for size in SHAPES for length in (512, 2048) for packed in (True, False)}
    assert {(cell.rank, cell.quantized) for cell in CELLS if cell.size == "7b" and cell.rank} == {
        (8, False), (8, True), (128, False), (128, True),
    }  # fmt: skip
    small = gpu_cells.rehearsal(CELLS)
    assert {(cell.kind, cell.packed, cell.quantized) for cell in small} == {
        (cell.kind, cell.packed, cell.quantized) for cell in CELLS
    }
    assert all(cell.length <= 128 for cell in small)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.kind != "decode"], ids=lambda cell: cell.name)
def test_llfs_settings_are_a_config_of_ours(cell, tmp_path):
    import yaml

    name = "llf-dpo" if cell.kind == "dpo" else "llf"
    changed = gpu_cells.changes(name, cell, Place(tmp_path, ROWS, card=True, steps=5))
    settings = yaml.safe_load(settings_file(name).read_text()) | {"dataset": "train", "dataset_dir": str(tmp_path)}
    config = RunConfig.load(settings | changed)
    assert config.get("lora_rank") == cell.rank
    assert config.get("packing") is (True if cell.packed else config.get("packing"))
    assert config.get("quantization_bit") == (4 if cell.quantized else None)


def test_a_contender_is_asked_the_same_in_its_own_words():
    cell = sft(1, "7b", 2048, 128, quantized=True, packed=False)
    place = Place(Path("m"), ROWS, card=True, steps=5)
    ours, trl, unsloth = (gpu_cells.changes(name, cell, place) for name in ("llf", "trl-liger", "unsloth"))
    assert {one["max_steps"] for one in (ours, trl, unsloth)} == {5}
    assert (ours["lora_rank"], trl["lora"]["r"], unsloth["lora"]["r"]) == (128, 128, 128)
    assert (ours["lora_alpha"], trl["lora"]["lora_alpha"], unsloth["lora"]["lora_alpha"]) == (256, 256, 256)
    assert ours["quantization_bit"] == 4
    assert trl["quantization"]["load_in_4bit"]
    assert unsloth["model"]["load_in_4bit"]
    assert (trl["padding_free"], trl["packing"], trl["use_liger_kernel"], trl["use_cpu"]) == (True, False, True, False)
    assert trl["max_length"] is None
    assert gpu_cells.changes("trl", sft(1, "7b", 2048), place)["max_length"] == 2048


def test_the_operations_of_a_token_are_those_that_are_counted_by_hand():
    # Hidden 4, inner 8, 2 heads and 1 key-value head of 2: q 16, k 8, v 8, o 16, gate, up and down 32 each.
    numbers = {"num_hidden_layers": 3, "hidden_size": 4, "intermediate_size": 8, "num_attention_heads": 2}
    shape = numbers | {"num_key_value_heads": 1, "head_dim": 2, "vocab_size": 10}
    frozen, adapters = 144, 2 * (8 + 6 + 6 + 8 + 12 + 12 + 12)
    by_hand = 3 * (4 * frozen + 6 * adapters + 6 * 5 * 4) + 4 * 0.5 * 10 * 4
    assert gpu_cells.flops_per_token(shape, 2, 5.0, 0.5) == by_hand
    count = sum(n * k for n, k in gpu_cells.linears(SHAPES["7b"])) * 32
    assert count == 6_476_005_376  # of Llama 2 7B's 6.74 billion, what its layers multiply by


def test_lengths_are_between_a_sixteenth_and_all_and_the_same_every_time():
    found = gpu_rows.lengths(512, 100_000, 5)
    assert sum(found) >= 100_000
    assert (min(found) >= 32, max(found) <= 512) == (True, True)
    assert found == gpu_rows.lengths(512, 100_000, 5)
    assert abs(sum(found) / len(found) / gpu_rows.mean_length(512) - 1) < 0.1
    assert len(gpu_rows.lengths(64, 0, 7)) == 7


def test_texts_have_about_their_lengths(tiny_tokenizer):
    rows = gpu_rows.texts([64, 200], "sft", tiny_tokenizer) + gpu_rows.texts([200], "dpo", tiny_tokenizer)
    counts = [sum(len(tiny_tokenizer.encode(part)) for part in row.values()) for row in rows]
    assert [abs(count - wanted) <= 6 for count, wanted in zip(counts, (40, 176, 176), strict=True)] == [True] * 3
    assert rows[2]["chosen"] != rows[2]["rejected"]


def test_a_pair_is_split_where_its_answers_begin():
    row = {"input_ids": [1, 2, 3, 4], "rejected_ids": [1, 2, 5], "labels": [-100, -100, 3, 4]}
    assert split(row) == {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5]}


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    code = "import os, time; os.fork(); time.sleep(60)"
    with pytest.raises(TimeoutError, match="longer than 1 s"):
        processes.run([sys.executable, "-c", code], {}, tmp_path / "log", 1.0)


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """A benchmark whose contenders answer at once: LLF twice as fast as TRL; of others there are none."""
    monkeypatch.setattr(gpu_cells, "absent", lambda **_: {"trl-liger": "none", "unsloth": "none", "peft": "none"})
    monkeypatch.setattr(gpu_cells, "PACKED", ("llf", "trl"))
    asked = argparse.Namespace(
        minutes=1.0, results=tmp_path / "results" / "gpu.json", work=tmp_path / "work", rounds=2, add=None, model=None
    )

    def once(self, cell, contender):
        self.result["cells"].setdefault(cell.name, gpu.asdict(cell) | {"shape": TINY, "rows": ROWS})
        if contender == "trl" and cell.quantized:
            raise RuntimeError("it ended with 1:\nTraceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried …")
        seconds = 0.5 if contender == "llf" else 1.0
        return {"steps": [[seconds, 100, 50, 1.0]] * 5, "wall_s": 2.0, "peak_cuda_bytes": 3 * 10**9}

    monkeypatch.setattr(gpu.Benchmark, "once", once)
    monkeypatch.setattr(
        gpu.Benchmark, "measure_peak", lambda self: self.result.update(card={"name": "a card"}, tflops=1e-3)
    )
    return gpu.Benchmark(asked, card=False)


def test_what_was_measured_is_kept_after_every_run_and_told(benchmark, tmp_path):
    seen = []
    store = benchmark.store
    benchmark.store = lambda: (store(), seen.append(len(json.loads(benchmark.asked.results.read_text())["runs"])))
    benchmark.all([sft(1, "7b", 64), sft(1, "7b", 64, quantized=True)])
    assert seen == [0, 1, 2, 3, 4, 5, 6, 7, 7]  # what failed is not tried again
    stored = json.loads(benchmark.asked.results.read_text())
    assert [(one["contender"], one["round"]) for one in stored["runs"][:2]] == [("llf", 0), ("trl", 0)]
    assert [one["contender"] for one in stored["runs"] if one["round"] == 1] == ["trl", "llf", "llf"]
    text = (tmp_path / "results" / "gpu.md").read_text()
    assert "| trl | 2 | 100 | 100 to 100 |" in text
    assert "| 2.00 times as fast, in 1.00 of its memory |" in text
    assert "| trl | 0 | failed: out of memory |" in text
    flops = gpu_cells.flops_per_token(TINY, 8, 100.0, 0.75)
    assert f"| llf | 2 | 200 | 200 to 200 | {200 * flops / 1e9:.0%} | 3.00 |" in text


def test_without_time_nothing_begins_and_it_is_said(benchmark):
    benchmark.asked.rounds = 1
    benchmark.bounds = gpu.Bounds(0.0, 1.0)
    benchmark.all([sft(1, "7b", 64)])
    assert benchmark.result["runs"] == []
    name = "sft-7b-64-lora-r8-packed"
    assert benchmark.result["not_run"] == [[name, "llf", 0], [name, "trl", 0]]
    assert f"The time did not suffice for the first round of: {name}." in report_gpu.text(benchmark.result)


def test_a_run_that_the_end_of_the_time_cuts_off_has_not_failed(benchmark, monkeypatch):
    def late(self, *_):
        self.bounds.end -= 60.0
        raise TimeoutError("It took longer than 3 s, and was ended.")

    monkeypatch.setattr(gpu.Benchmark, "once", late)
    monkeypatch.setattr(gpu.Benchmark, "expected", lambda *_: 0.0)
    benchmark.asked.rounds = 1
    benchmark.all([sft(1, "7b", 64)])
    assert benchmark.result["runs"] == []
    assert len(benchmark.result["not_run"]) == 2


def test_an_earlier_result_is_gone_on_with_only_where_it_is_of_the_same(benchmark, tmp_path):
    benchmark.all([sft(1, "7b", 64)])
    before = tmp_path / "before.json"
    before.write_text(benchmark.asked.results.read_text())
    benchmark.result["runs"] = []
    benchmark.asked.add, benchmark.asked.rounds = before, 3
    benchmark.all([sft(1, "7b", 64)])
    assert sorted(one["round"] for one in benchmark.result["runs"]) == [0, 0, 1, 1, 2, 2]
    before.write_text(before.read_text().replace("a card", "another card"))
    with pytest.raises(SystemExit, match="of another card"):
        benchmark.all([sft(1, "7b", 64)])


def test_the_papers_rows_stand_beside_ours_of_the_same_setting(benchmark):
    cell = Cell(1, "sft", "7b", 512, 128, packed=True, tokens=512, checkpointing=True, paper=True)
    benchmark.all([cell])
    text = report_gpu.text(benchmark.result)
    assert "| the paper | QLoRA | 7.52 | 1,579 |" in text
    assert "| llf, here | LoRA | 3.00 | 200 |" in text
    assert "2403.13372" in text


@pytest.mark.long
def test_a_model_of_random_numbers_has_the_shape_and_the_tokenizer(tiny_model_dir, tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    made = models.random_model(tmp_path / "models" / "tiny", tiny_model_dir, TINY)
    config = AutoConfig.from_pretrained(made)
    assert (config.num_hidden_layers, config.vocab_size, config.head_dim) == (2, 50_304, 16)
    assert len(AutoTokenizer.from_pretrained(made)) == len(AutoTokenizer.from_pretrained(tiny_model_dir))
    with pytest.raises(RuntimeError):
        models.random_model(tmp_path / "broken", tiny_model_dir, TINY | {"num_attention_heads": "no number"})
    assert not (tmp_path / "broken").exists()
