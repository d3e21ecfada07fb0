"""The forecast: its sums by hand, its parts against what torch counts, its total against a real process."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from llf_core.config import RunConfig
from llf_core.config.declaration import OptimizerDeclaration, OptimizerMemory
from llf_core.config.registry import declared
from llf_core.estimate import (
    Architecture,
    TrainingPass,
    architecture,
    available_memory,
    training_memory,
    weight_bytes,
    weight_shapes,
)
from llf_core.estimate.example_lengths import of_lengths
from llf_core.estimate.memory_forecast import (
    COMPILED_BYTES,
    OVERHEAD,
    activation_bytes,
    head_bytes,
    kept_keys,
    layer_bytes,
)
from llf_core.estimate.model_shapes import encoder
from llf_core.estimate.model_sizes import new_token_parameters
from llf_core.launch.environment import Cgroup

ONE = Architecture(hidden=10, layers=3, inner=60, linears=7, largest=200, heads=2, vocabulary=50, outer=510)
STEP = TrainingPass(tokens=8, longest=4, width=2, autocast=True, rank=1)


def shapes_of(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def llama(layers=2, hidden=64, inner=160):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )
    )  # fmt: skip


def test_the_embedded_model_is_measured_as_it_was_published() -> None:
    found = architecture(weight_shapes("smollm2-135m-instruct") or {}, {"num_attention_heads": 9})
    # q, k, v, o: 576 + 192 + 192 + 576; gate, up, down: 1,536 each
    assert found == Architecture(576, 30, 1536 + 3 * 1536, 7, 576 * 1536, 9, 49_152, 49_152 * 576 + 576)


def test_families_that_name_and_store_layers_otherwise_have_the_same_sizes() -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=90, n_positions=16))
    found = architecture(shapes_of(gpt2), gpt2.config.to_dict())
    assert found is not None
    # c_attn 96, c_proj 32, c_fc 128, c_proj 128
    assert (found.hidden, found.layers, found.inner, found.heads, found.vocabulary) == (32, 2, 384, 4, 90)
    phi = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=0,
        )
    )  # fmt: skip
    found = architecture(shapes_of(phi), phi.config.to_dict())
    assert found is not None
    # qkv 32 + 16 + 16, o 32, gate_up 96, down 48
    assert (found.hidden, found.layers, found.inner) == (32, 2, 64 + 32 + 96 + 48)


def test_of_experts_only_those_count_that_see_a_token() -> None:
    weights = {
        "model.embed_tokens.weight": (90, 32),
        "model.layers.0.mlp.experts.gate_up_proj": (8, 128, 32),
        "model.layers.0.mlp.experts.down_proj": (8, 32, 64),
        "model.layers.0.input_layernorm.weight": (32,),
    }
    found = architecture(weights, {"num_experts_per_tok": 3})
    assert found is not None
    assert found.inner == 3 * (128 + 64)


def test_names_without_layers_tell_nothing() -> None:
    assert architecture({"weight": (3, 4)}) is None
    assert architecture({}) is None


def test_the_parts_of_a_lora_step_by_hand() -> None:
    found = training_memory(ONE, dataclasses.replace(STEP, on_cpu=False), weights=1000, trained=70)
    assert found.base == 530_000_000
    assert (found.weights, found.gradients, found.optimizer) == (1000, 280, 560)
    kept = (60 + 4 * 10) * 2 + 7 * 1 * 4  # a layer and token
    passing = (60 + 4 * 10) * 2 + 2 * 10 * 4
    assert found.activations == int(1.2 * 8 * (3 * kept + passing))
    assert found.head == 8 * 50 * 10
    assert found.total == sum(dataclasses.astuple(found))
    assert found.step == found.total - 530_000_000 - 1000


def test_a_trained_encoder_stores_the_activations_of_its_patches() -> None:
    """Two layers of 8 values: q, k, v and o, and an MLP of 32."""
    layers = {
        f"vision_tower.encoder.layers.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {"q": (8, 8), "k": (8, 8), "v": (8, 8), "o": (8, 8), "fc1": (32, 8), "fc2": (8, 32)}.items()
    }
    found = encoder({"model.layers.0.mlp.up_proj.weight": (64, 16), "vision_tower.embed.weight": (40, 8)} | layers)
    assert found is not None
    assert (found.hidden, found.layers, found.inner, found.linears) == (8, 2, 4 * 8 + 2 * 32, 6)
    assert encoder({"model.layers.0.mlp.up_proj.weight": (64, 16)}) is None

    step = dataclasses.replace(STEP, patches=50, trains_encoder=True)
    kept = (96 + 4 * 8) * 2 * OVERHEAD[False, False, True] + 6 * 1 * 4
    without, trained, frozen = (
        training_memory(ONE, one, weights=0, trained=0, encoder=by)
        for one, by in ((step, None), (step, found), (dataclasses.replace(step, trains_encoder=False), found))
    )
    assert trained.activations - without.activations == pytest.approx(1.2 * 2 * 50 * kept, abs=2)
    assert frozen == without


def test_activations_go_as_the_gradients_of_weights_come() -> None:
    """On a CPU, 0.4 of what is smaller is not there at the peak, and gradients fill the gaps between activations.

    A tied embedding has two gradients for a moment.
    """
    adam = OptimizerMemory(8 * 70, 70)
    lora, full, tied = (
        dataclasses.replace(STEP, on_cpu=False, trains_base=base, tied=tied)
        for base, tied in ((False, False), (True, False), (True, True))
    )
    kept = activation_bytes(ONE, full)
    found = training_memory(ONE, full, weights=0, trained=70, optimizer=adam)
    assert (found.gradients, found.activations) == (4 * 70 + 2 * 70, int(kept - 0.4 * min(kept, 4 * 70)))
    small = training_memory(ONE, lora, weights=0, trained=70, optimizer=adam)
    assert small.activations == int(1.2 * activation_bytes(ONE, lora))
    for trained, more in ((499, 0), (500, 4 * 500)):  # fewer gradients than the embedding: it is not among them
        found = training_memory(ONE, tied, weights=0, trained=trained, optimizer=OptimizerMemory(0, trained))
        assert found.gradients == (4 + 2) * trained + more
    card = training_memory(ONE, full, weights=0, trained=70, optimizer=adam, device="cuda")
    assert card.activations == int(1.1 * activation_bytes(ONE, full))


@pytest.mark.parametrize("tokens", [1, 256, 384, 385, 511, 512, 513, 700, 1024, 5000])
def test_attention_stores_the_probabilities_that_are_counted(tokens: int) -> None:
    from llf_core.acceleration.kernels.attention import Layout

    layout = Layout((0, tokens), scale=1.0)
    blocks = [(last - first, last - start) for first, last, start, _ in layout.blocks()]
    stored = sum(queries * keys for queries, keys in blocks if layout.keeps(keys))
    assert kept_keys(tokens) * tokens == pytest.approx(stored, rel=0.1, abs=256)  # documents are padded to 16


def test_rows_of_new_tokens_by_hand() -> None:
    """Two rows in embedding and head, and beside an adapter the merged head and its gradient in bfloat16."""
    shapes = {"model.embed_tokens.weight": (1000, 64), "model.layers.0.mlp.up_proj.weight": (64, 64)}
    apart = shapes | {"lm_head.weight": (1000, 64)}
    keys = {"dataset": "llf_demo", "add_tokens": "<fish>,<ship>"}
    lora, full, freeze = (RunConfig.load(keys | {"finetuning_type": one}) for one in ("lora", "full", "freeze"))
    assert [new_token_parameters(lora, one) for one in (shapes, apart)] == [2 * 64, 2 * 2 * 64]
    assert new_token_parameters(full, apart) == 2 * 2 * 64
    assert new_token_parameters(freeze, apart) == 2 * 1002 * 64
    assert new_token_parameters(RunConfig.load({"dataset": "llf_demo"}), apart) == 0
    step = TrainingPass(
        tokens=64, longest=64, width=2, autocast=True, trains_base=False, rank=8, fast=True, on_cpu=True
    )
    sizes = architecture(apart)
    assert sizes is not None
    with_rows, without = (training_memory(sizes, step, weights=0, trained=0, rows=rows) for rows in (True, False))
    assert with_rows.total - without.total == 2 * 1000 * 64 * 2


def test_bitsandbytes_takes_memory_of_the_process_but_not_of_a_card() -> None:
    for device, more in (("cpu", 130_000_000), ("cuda", 0)):
        plain, quantized = (
            training_memory(ONE, STEP, weights=1000, trained=70, device=device, quantized=one) for one in (False, True)
        )
        assert quantized.total - plain.total == quantized.base - plain.base == more


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer() -> None:
    step = dataclasses.replace(STEP, on_cpu=False, checkpointing=True)
    kept, passing = (60 + 4 * 10) * 2 + 7 * 4, (60 + 4 * 10) * 2 + 2 * 10 * 4
    assert activation_bytes(ONE, step) == 8 * (3 * 10 * 2 + kept + passing)


def test_layers_below_the_first_trained_one_keep_nothing() -> None:
    low, high = (activation_bytes(ONE, dataclasses.replace(STEP, first=first)) for first in (0, 2))
    assert low - high == 2 * 8 * layer_bytes(ONE, STEP)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("adamw_torch_fused", 8), ("adamw_8bit", 2), ("paged_adamw_32bit", 8), ("sgd", 0), ("lion_32bit", 4),
        ("paged_lion_8bit", 1), ("rmsprop_bnb", 4), ("ademamix", 12),
    ],
)  # fmt: skip
def test_state_of_optimizers(name: str, size: float) -> None:
    assert declared(OptimizerDeclaration)[name].state_bytes == size


def test_quantized_layers_are_smaller_and_the_embedding_is_not() -> None:
    assert weight_bytes(ONE, 2510, width=2) == 5020
    assert weight_bytes(ONE, 2510, width=2, each=0.52) == 510 * 2 + 2000 * 0.52
    assert weight_bytes(ONE, 2510, width=2, each=1.0) == 510 * 2 + 2000


def test_a_card_makes_larger_chunks_of_logits() -> None:
    from llf_core.acceleration.kernels.cross_entropy import CHUNK, CHUNK_ELSEWHERE

    many = dataclasses.replace(STEP, tokens=10**8)
    assert CHUNK["cpu"] < head_bytes(ONE, many) < 2 * CHUNK["cpu"]
    # A chunk of logits and the float32 copy of a block of it.
    assert head_bytes(ONE, dataclasses.replace(many, on_cpu=False)) == 2 * CHUNK_ELSEWHERE
    assert head_bytes(ONE, dataclasses.replace(STEP, on_cpu=False)) == 8 * 50 * 10


def test_available_memory_is_bounded_by_the_container(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    for name, text in {"memory.max": "5000", "memory.current": "1000"}.items():
        (tmp_path / name).write_text(text)
    assert available_memory(Cgroup(tmp_path, tmp_path / "own")) == 4000
    assert available_memory(Cgroup(tmp_path, tmp_path / "none")) > 4000


def saved_bytes(model, tokens, *, autocast):
    """What autograd keeps of a forward pass through the layers, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    decoder = model.get_base_model().model if hasattr(model, "get_base_model") else model.model
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        decoder(input_ids=torch.arange(tokens)[None] % 90, use_cache=False)
    return sum(found.values())


@pytest.mark.parametrize("trains_base", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_plain_layers_keep_what_the_formula_says(trains_base: bool, autocast: bool) -> None:
    from peft import LoraConfig, get_peft_model

    kept = []
    for layers in (1, 3):
        model = llama(layers, hidden=192, inner=512)
        sizes = architecture(shapes_of(model), model.config.to_dict())
        if not trains_base:
            model = model.to(torch.bfloat16 if autocast else torch.float32)
            model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
            for parameter in model.parameters():
                parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
        # Autocast's copies of weights do not grow with the tokens.
        short, long = (saved_bytes(model.train(), tokens, autocast=autocast) for tokens in (128, 256))
        kept.append(long - short)
    step = TrainingPass(
        tokens=128, longest=128, width=2 if autocast else 4, autocast=autocast, trains_base=trains_base,
        rank=0 if trains_base else 8, fast=False,
    )  # fmt: skip
    assert sizes is not None
    assert 128 * layer_bytes(sizes, step) == pytest.approx((kept[1] - kept[0]) / 2, rel=0.15)


@pytest.mark.parametrize(
    ("device", "width", "varies", "compiled"),
    [("cpu", 2, True, True), ("cpu", 2, False, False), ("cpu", 4, True, False), ("cuda", 2, True, False)],
)
def test_a_cpu_keeps_bfloat16_products_for_batches_of_many_lengths(
    device: str, width: int, varies: bool, compiled: bool
) -> None:
    one, other = (
        training_memory(ONE, dataclasses.replace(STEP, width=width, varies=both), weights=0, trained=1, device=device)
        for both in (varies, False)
    )
    assert one.base - other.base == (COMPILED_BYTES if compiled else 0)


def test_examples_vary_in_length_if_they_do_after_truncation() -> None:
    found = of_lengths(np.array([70, 90, 80]), basis="", exact=True)
    assert found.varies(1000)
    assert found.varies(80)
    assert not found.varies(70)
