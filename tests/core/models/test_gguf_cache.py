"""GGUF files are dequantized once: later starts load what the first has kept."""

import os
import shutil

import gguf
import numpy as np
import pytest
import torch

from llf_core.generation import generate
from llf_core.models import ModelError, gguf_cache, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.gguf_conversion import read_gguf_model
from llf_core.models.quantize import is_quantized
from tests.tiny import tiny_llama

from .gguf_file import write_gguf

Q8 = gguf.GGMLQuantizationType.Q8_0


@pytest.fixture
def file(tiny_tokenizer, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(tiny_tokenizer), tiny_tokenizer, kind=Q8)
    return path


@pytest.fixture
def read(monkeypatch):
    """The GGUF files that were dequantized, in order."""
    found = []
    monkeypatch.setattr(
        gguf_cache, "read_gguf_model", lambda path, dtype: found.append(path) or read_gguf_model(path, dtype)
    )
    return found


@pytest.fixture
def load(config):
    def made(path, **keys):
        asked = config(model_name_or_path=str(path), **keys)
        return load_model(resolve_model(str(path), asked), asked, plan_device(asked))

    return made


def kept(home):
    return sorted(path.name for path in (home / "cache" / "gguf").glob("*"))


def test_shapes_that_transformers_derives_otherwise_are_a_sentence(tiny_tokenizer, tmp_path):
    """As of a Qwen3 whose `head_dim` is not the hidden size by the number of heads."""
    model = tiny_llama(tiny_tokenizer)
    model = type(model)(type(model.config)(**model.config.to_dict() | {"head_dim": 32}))
    write_gguf(tmp_path / "wide.gguf", model, tiny_tokenizer)
    with pytest.raises(ValueError, match="derives other shapes of weights"):
        read_gguf_model(tmp_path / "wide.gguf", torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_second_load_has_the_same_weights_and_reads_no_gguf(file, read, load, home, monkeypatch, dtype):
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 1.0)
    keys = {"pure_bf16": True} if dtype == torch.bfloat16 else {}
    first, second = load(file, **keys).state_dict(), load(file, **keys).state_dict()
    assert read == [file]
    assert len(kept(home)) == 1
    assert kept(home)[0].endswith(str(dtype).removeprefix("torch."))
    direct = read_gguf_model(file, dtype).state_dict()
    assert direct.keys() == first.keys() == second.keys()
    for name, weight in direct.items():
        assert weight.dtype == dtype
        assert torch.equal(first[name], weight), name
        assert torch.equal(second[name], weight), name


def test_another_file_in_its_place_is_dequantized_again(file, read, load, home, tiny_tokenizer):
    before = load(file).state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    other = tiny_llama(tiny_tokenizer)
    other.model.layers[0].mlp.up_proj.weight.data += 1
    write_gguf(file, other, tiny_tokenizer, kind=Q8)
    os.utime(file, ns=(1, 1))
    after = load(file).state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert torch.allclose(after.float(), before.float() + 1, atol=0.05)
    assert len(read) == 2
    assert len(kept(home)) == 1


@pytest.mark.usefixtures("home")
def test_a_format_that_gguf_cannot_dequantize_is_named(tiny_tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "tiny.gguf"
    monkeypatch.setattr(gguf, "quantize", lambda array, _kind: array.astype(np.float64))
    write_gguf(path, tiny_llama(tiny_tokenizer), tiny_tokenizer, kind=gguf.GGMLQuantizationType.F64)
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be loaded: .*F64"):
        gguf_cache.dequantized_folder(path, torch.float32)


def test_what_a_killed_process_left_is_not_taken(file, read, load, home):
    load(file)
    (folder,) = (home / "cache" / "gguf").iterdir()
    (folder / "llf.json").write_text("{")
    load(file)
    assert len(read) == 2
    assert len(kept(home)) == 1


def test_weights_of_a_file_that_is_gone_are_deleted_with_the_next_one(file, load, home, tmp_path):
    load(file)
    moved = tmp_path / "moved" / "tiny.gguf"
    moved.parent.mkdir()
    shutil.move(file, moved)
    load(moved)
    assert len(kept(home)) == 1


def test_without_room_on_the_disk_it_is_dequantized_at_each_start(file, load, home, monkeypatch, caplog):
    expected = read_gguf_model(file, torch.float32).state_dict()
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 1.0)
    monkeypatch.setattr(gguf_cache, "free_bytes", lambda: 1000)
    found = load(file).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert kept(home) == []
    assert "tiny.gguf is dequantized at each start: its weights take 0.0 GB in float32" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_error(file, load, home, caplog):
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "gguf").write_text("")
    load(file)
    assert "cannot be written" in caplog.text


def test_its_weights_can_be_quantized_again(file, load, config):
    model = load(file, quantization_bit=4)
    assert is_quantized(model)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    source = resolve_model(str(file))
    assert generate(model, load_tokenizer(source, config()), ["one"], max_new_tokens=2)
