"""A step on another device than the CPU: nothing in it is made on the CPU, and nothing waits for the device.

There need be no such device: tensors of `FakeTensorMode` are checked for where they are, and hold no numbers that
anyone could ask for.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers import LlamaConfig, LlamaForCausalLM

from llf_core.acceleration.kernels import attention, cross_entropy
from llf_core.acceleration.kernels.attention import cached_list
from llf_core.acceleration.kernels.cross_entropy import log_probs
from llf_core.acceleration.patching import attention_backend, fast_forwards
from llf_core.acceleration.patching.causal_head import empty_mask, forward
from llf_core.acceleration.patching.install import accelerate
from llf_core.estimate import TrainingPass, architecture
from llf_core.estimate.memory_forecast import layer_bytes
from tests.core.acceleration.architectures import CONFIGS, tiny
from tests.tiny import tiny_llama

BOUNDS, FORKS = [0, 8, 20], [[3, 5], [12, 15]]
ASKING = {"opt"}  # transformers' own code asks for a number
PADDED = {"falcon-alibi", "falcon", "bloom", "mpt", "mamba", "mamba2"}  # a flattened batch is none of theirs
ELSEWHERE = "meta"  # of the devices that this torch may be built without, none is asked for numbers


@pytest.fixture(params=["lora", "full"])
def model(request, tiny_tokenizer):
    from peft import LoraConfig, get_peft_model

    made = tiny_llama(tiny_tokenizer)
    if request.param == "lora":
        made = get_peft_model(made.bfloat16(), LoraConfig(r=4, target_modules="all-linear"))
        for parameter in made.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    assert accelerate(made).forks
    return made.train()


@pytest.fixture
def elsewhere(monkeypatch):
    """`elsewhere(model, flash=True, forks=False)`: a step of a model on another device; returns its loss.

    Parameters stay what they are, so that the fast products know them; each becomes fake where it is computed with.
    """
    for module in (attention_backend, cross_entropy, fast_forwards):  # autocast knows no made-up device
        monkeypatch.setattr(module, "computing_dtype", lambda _: torch.bfloat16)
    assert "cu_seq_q" in attention_backend.varlen_arguments()
    attention._unfolding.cache_clear()
    attention_backend._bounds_on.cache_clear()

    def step(model, *, flash=True, forks=False):
        plain = attention_backend._flash_knows
        monkeypatch.setattr(attention_backend, "_flash_knows", lambda q, v, layout: flash and known(q, v, layout))
        model.to(ELSEWHERE)
        with FakeTensorMode(allow_non_fake_inputs=True):
            bounds = torch.empty(3, dtype=torch.int32, device=ELSEWHERE)
            setattr(bounds, attention.CACHED_LIST, (bounds._version, BOUNDS))  # as the first layer has asked
            told = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 12, "max_length_k": 12}
            if forks:
                told["forks"] = torch.empty(2, 2, dtype=torch.int32, device=ELSEWHERE)
                setattr(told["forks"], attention.CACHED_LIST, (told["forks"]._version, FORKS))
            ids, positions = (torch.empty(1, 20, dtype=torch.int64, device=ELSEWHERE) for _ in range(2))
            targets = torch.empty(20, dtype=torch.int64, device=ELSEWHERE)
            total = forward(
                model,
                {"input_ids": ids, "position_ids": positions, **told},
                lambda hidden, head: log_probs(hidden.reshape(-1, hidden.shape[-1]), head, targets).sum(),
            )
            total.backward()
            with pytest.raises(Exception, match="_local_scalar_dense"):
                cached_list(ids)  # so that this test would see it
            with pytest.raises(RuntimeError, match="device"):
                ids + torch.ones(20)
        monkeypatch.setattr(attention_backend, "_flash_knows", plain)
        return total

    yield step
    attention._unfolding.cache_clear()
    attention_backend._bounds_on.cache_clear()


def known(q, v, layout):
    """What `_flash_knows` asks but for the device."""
    return layout.softcap is None and q.dtype == torch.bfloat16 and q.shape[-1] == v.shape[-1] and q.shape[-1] % 8 == 0


@pytest.mark.parametrize("flash", [True, False], ids=["flash", "one-by-one"])
@pytest.mark.parametrize("forks", [False, True], ids=["documents", "branches"])
def test_a_step_mixes_no_devices_and_asks_for_no_number(model, forks, flash, elsewhere):
    elsewhere(model, flash=flash, forks=forks)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.grad.device.type for parameter in trained} == {ELSEWHERE}
    assert {parameter.grad.dtype for parameter in trained} == {torch.float32}


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ASKING])
def test_no_architecture_mixes_devices(name, elsewhere):
    made = tiny(name, torch.bfloat16)
    assert accelerate(made).flattens == (name not in PADDED)
    if name not in PADDED:
        assert elsewhere(made.train()).device.type == ELSEWHERE


def kept_by_layers(layers, tokens, monkeypatch):
    """Bytes that autograd keeps of a decoder's forward pass on a card, parameters left out; and the model's sizes."""
    from peft import LoraConfig, get_peft_model

    config = LlamaConfig(
        vocab_size=100, hidden_size=192, intermediate_size=512, num_hidden_layers=layers, num_attention_heads=6,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    sizes = architecture({name: tuple(one.shape) for name, one in made.named_parameters()}, config.to_dict())
    made = get_peft_model(made.bfloat16(), LoraConfig(r=8, target_modules="all-linear"))
    for parameter in made.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    assert accelerate(made).flattens
    made.train().to(ELSEWHERE)
    own = {parameter.untyped_storage()._cdata for parameter in made.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return tensor

    with monkeypatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        for module in (attention_backend, cross_entropy, fast_forwards):
            patch.setattr(module, "computing_dtype", lambda _: torch.bfloat16)
        patch.setattr(attention_backend, "_flash_knows", lambda *_: True)
        bounds = torch.empty(3, dtype=torch.int32, device=ELSEWHERE)
        setattr(bounds, attention.CACHED_LIST, (bounds._version, [0, tokens // 2, tokens]))
        ids, positions = (torch.empty(1, tokens, dtype=torch.int64, device=ELSEWHERE) for _ in range(2))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made.get_base_model().model(
                input_ids=ids,
                position_ids=positions,
                use_cache=False,
                attention_mask=empty_mask(ELSEWHERE),
                cu_seq_lens_q=bounds,
                cu_seq_lens_k=bounds,
                max_length_q=tokens // 2,
                max_length_k=tokens // 2,
            )
    return sum(found.values()), sizes


def test_a_layer_keeps_on_a_card_what_the_forecast_says(monkeypatch):
    kept = []
    for layers in (1, 3):
        short, _ = kept_by_layers(layers, 128, monkeypatch)
        long, sizes = kept_by_layers(layers, 256, monkeypatch)
        kept.append(long - short)
    step = TrainingPass(tokens=128, longest=128, width=2, autocast=True, rank=8, fast=True, on_cpu=False)
    assert 128 * layer_bytes(sizes, step) == pytest.approx((kept[1] - kept[0]) / 2, rel=0.03)
