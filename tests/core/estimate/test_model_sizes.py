"""Sizes of a model: from headers, from `config.json`, from the Hugging Face cache, and from its name."""

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from llf_core.config import RunConfig
from llf_core.config.weight_shapes import ModelSizeError, loaded_shapes
from llf_core.estimate import trained_parameters
from llf_core.estimate.model_shapes import architecture
from llf_core.estimate.model_sizes import TYPICAL, model_sizes, named_parameters
from llf_core.model_catalog import known_models


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[LlamaForCausalLM, Path]:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=False,
        )
    )  # fmt: skip
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    return model, folder


def test_headers_and_config_json_tell_the_same(tiny: tuple[LlamaForCausalLM, Path]) -> None:
    model, folder = tiny
    whole = model_sizes(str(folder))
    (folder / "model.safetensors").unlink()
    alone = model_sizes(str(folder))
    assert whole is not None
    assert alone is not None
    assert whole.weights == alone.weights == {name: tuple(one.shape) for name, one in model.named_parameters()}
    assert whole.model == alone.model
    assert (whole.basis, alone.basis) == ("The headers of the model's weight files.", "The model's config.json.")
    assert alone.parameters == sum(one.numel() for one in model.parameters())


def test_a_model_in_the_cache_is_found(tiny: tuple[LlamaForCausalLM, Path], tmp_path: Path) -> None:
    _, folder = tiny
    snapshot = tmp_path / "hub" / "models--someone--small" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    found = model_sizes("someone/small", str(tmp_path / "hub"))
    assert found is not None
    assert found.model.layers == 2
    assert model_sizes("someone/other", str(tmp_path / "hub")) is None


def test_a_changed_file_is_read_again(tiny: tuple[LlamaForCausalLM, Path]) -> None:
    _, folder = tiny
    (folder / "model.safetensors").unlink()
    before = model_sizes(str(folder))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 12}))
    after = model_sizes(str(folder))
    assert before is not None
    assert after is not None
    assert (before.model.layers, after.model.layers) == (2, 12)


def test_indexed_attention_is_known_by_its_config(tiny: tuple[LlamaForCausalLM, Path]) -> None:
    _, folder = tiny
    settings = json.loads((folder / "config.json").read_text())
    for kind, above in (("llama", None), ("deepseek_v32", 64)):
        (folder / "config.json").write_text(json.dumps({**settings, "model_type": kind, "index_topk": 64}))
        found = model_sizes(str(folder))
        assert found is not None
        assert found.unpadded_above == above


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 7e9), ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9), ("/models/SmolLM2-135M", 135e6),
        ("Qwen/Qwen3-30B-A3B", 30e9), ("mistralai/Mixtral-8x7B-v0.1", 8 * 7e9 * 5 / 6), ("x/llama_70b/", 70e9),
        ("gpt2", None), ("someone/7bit-model", None), ("microsoft/phi-2", None), ("x/model-9999999b", None),
        ("x/0b", None), ("Qwen2.5", None),
    ],
)  # fmt: skip
def test_the_size_in_a_name(name: str, parameters: float | None) -> None:
    assert named_parameters(name) == (None if parameters is None else pytest.approx(parameters))


def test_the_catalog_tells_a_size_that_the_name_does_not() -> None:
    listed = [one for one in known_models() if one.parameters and one.parameters > 1 and not named_parameters(one.id)]
    assert listed
    for model in listed[:5]:
        found = model_sizes(model.id)
        assert found is not None
        assert found.parameters == pytest.approx((model.parameters or 0) * 1e9, rel=0.1), model.id
        assert not found.exact


@pytest.mark.parametrize("parameters", [0.135, 0.5, 1.2, 3, 7, 8, 14, 32, 70, 405])
def test_a_typical_decoder_has_the_named_number_of_parameters(parameters: float) -> None:
    found = model_sizes(f"x/y-{parameters:g}b" if parameters >= 0.5 else f"x/y-{parameters * 1000:g}m")
    assert found is not None
    assert found.parameters == pytest.approx(parameters * 1e9, rel=0.03)
    assert not found.exact
    assert found.model.hidden in {row[1] for row in TYPICAL}


def test_experts_that_files_store_apart_count_as_those_that_are_kept_together() -> None:
    outer = {"model.embed_tokens.weight": (90, 32)}
    together = {
        "model.layers.0.mlp.experts.gate_up_proj": (8, 128, 32), "model.layers.0.mlp.experts.down_proj": (8, 32, 64),
    }  # fmt: skip
    apart = {
        f"model.layers.0.mlp.experts.{number}.{name}.weight": shape
        for number in range(8)
        for name, shape in {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}.items()
    }
    settings = {"num_experts_per_tok": 2}
    one, other = (architecture(loaded_shapes({**outer, **inner}), settings) for inner in (together, apart))
    assert one is not None
    assert other is not None
    assert one == other
    assert one.inner == 2 * 192


def test_an_adapter_of_experts_is_counted_as_peft_makes_it(tmp_path: Path) -> None:
    settings = {
        "model_type": "mixtral", "vocab_size": 352, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = model_sizes(str(tmp_path))
    assert found is not None
    config = RunConfig.load({"model_name_or_path": str(tmp_path), "dataset": "llf_demo", "lora_rank": 4})
    # q, o: 32 + 32; k, v: 32 + 16; of each of 4 experts, gate and up together 32 + 96, down 48 + 32
    assert trained_parameters(config, found.weights) == 2 * 4 * (2 * 64 + 2 * 48 + 4 * (128 + 80))
    only = config.replace(lora_target="down_proj")
    assert trained_parameters(only, found.weights) == 2 * 4 * 4 * 80


def test_absurd_files_are_a_sentence(tmp_path: Path) -> None:
    header = json.dumps({"model.layers.0.x.weight": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 0]}})
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(ModelSizeError, match=r"10\^18 parameters"):
        model_sizes(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": {}}')
    with pytest.raises(ModelSizeError, match=r"hidden_size"):
        model_sizes(str(tmp_path))
    for broken in ("", "[", "[" * 100_000, "3", "{}", '{"model_type": 3}'):
        (tmp_path / "config.json").write_text(broken)
        assert model_sizes(str(tmp_path)) is None
