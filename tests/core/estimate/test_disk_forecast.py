import json
import struct
from pathlib import Path

import pytest

from llf_core.config import RunConfig
from llf_core.config.weight_shapes import count
from llf_core.estimate import forecast_disk, trained_parameters, weight_shapes

BASE = {"dataset": "llf_demo"}
TINY = {  # two layers of one 4x6 matrix and a norm of 4, and an embedding of 10x4
    "model.embed_tokens.weight": [10, 4],
    "model.layers.0.up_proj.weight": [4, 6],
    "model.layers.0.norm.weight": [4],
    "model.layers.1.up_proj.weight": [4, 6],
    "model.layers.1.norm.weight": [4],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in TINY.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path = tmp_path / "model"
    path.mkdir()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def config(**values: object) -> RunConfig:
    return RunConfig.load({**BASE, **values})


def test_embedded_model_has_the_published_number_of_parameters() -> None:
    assert count(weight_shapes("smollm2-135m-instruct") or {}) == 134_515_008


def test_lora_of_rank_8_on_the_embedded_model_trains_what_peft_counts() -> None:
    weights = weight_shapes("smollm2-135m-instruct")
    assert weights is not None
    assert trained_parameters(config(), weights) == 2_442_240
    assert trained_parameters(config(lora_rank=16), weights) == 2 * 2_442_240
    assert trained_parameters(config(lora_target="q_proj"), weights) == 30 * 8 * (576 + 576)
    assert trained_parameters(config(lora_target="self_attn.q_proj"), weights) == 30 * 8 * (576 + 576)
    assert trained_parameters(config(lora_target="layers.3.self_attn.q_proj"), weights) == 8 * (576 + 576)
    assert trained_parameters(config(lora_target="attn.q_proj"), weights) == 0
    # the files of GPT-2 name no module around its layers
    inside = {f"h.{name.partition('.layers.')[2]}": shape for name, shape in weights.items() if ".layers." in name}
    assert trained_parameters(config(), inside) == 2_442_240


def test_methods_train_their_part_of_a_folder(folder: Path) -> None:
    weights = weight_shapes(str(folder))
    assert weights is not None
    assert trained_parameters(config(finetuning_type="full"), weights) == 40 + 2 * (24 + 4)
    assert trained_parameters(config(finetuning_type="freeze", freeze_trainable_layers=1), weights) == 24 + 4
    assert trained_parameters(config(lora_rank=2), weights) == 2 * 2 * (4 + 6)


def test_full_tuning_writes_weights_and_moments_of_each_checkpoint(folder: Path) -> None:
    parameters = 96
    asked = config(model_name_or_path=str(folder), finetuning_type="full", max_steps=30, save_steps=10)
    assert forecast_disk(asked) == 3 * (12 * parameters + 8_000_000) + 4 * parameters + 8_000_000


def test_no_more_checkpoints_are_counted_than_are_kept() -> None:
    few = forecast_disk(config(max_steps=1000, save_steps=10, save_total_limit=1))
    more = forecast_disk(config(max_steps=1000, save_steps=10, save_total_limit=2))
    assert few is not None
    assert more is not None
    assert more - few == 12 * 2_442_240 + 8_000_000


def test_what_only_a_hub_knows_is_not_guessed() -> None:
    assert forecast_disk(config(model_name_or_path="someone/some-model")) is None


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0{", b"\xff" * 16])
def test_file_that_cannot_be_read_is_not_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_shapes(str(tmp_path)) is None
