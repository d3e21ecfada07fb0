"""Answers by our decode loop, beside plain `generate`."""

from __future__ import annotations

import pytest
import torch

from llf_core.config import RunConfig
from llf_core.generation import generate
from llf_core.generation.batches import Decoder
from llf_core.generation.generate import encode, end_tokens
from llf_core.methods.method import apply_method
from llf_core.models import load_model, load_tokenizer, plan_device, resolve_model

PROMPTS = ["one two three", "What is the capital of France, and how do plants make their food?", "sea"]


@pytest.fixture
def loaded(settings, precise):
    """`loaded(dtype, **changes)`: model with its method, and tokenizer, on the device under test."""

    def load(dtype="float32", **changes):
        precise(dtype)
        config = RunConfig.load(settings | changes)
        source = resolve_model(config.model.model_name_or_path, config)
        torch.manual_seed(0)
        model = apply_method(load_model(source, config, plan_device(config)), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        return model, load_tokenizer(source, config)

    return load


def test_greedy_answers_are_those_of_plain_generate(loaded, device):
    model, tokenizer = loaded()
    assert Decoder(model).plain is None
    expected = []
    for prompt in PROMPTS:
        batch = encode(tokenizer, [prompt]).to(device)
        made = model.eval().generate(
            **batch, do_sample=False, max_new_tokens=24, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=end_tokens(model, tokenizer),
        )  # fmt: skip
        new = made[0, batch["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=24) == expected
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=24, batch_size=1) == expected


@pytest.mark.parametrize("dtype", ["float32", "half"])
def test_drawn_answers_depend_on_their_seed_alone(loaded, device, dtype):
    """Beside a base in half precision, trained weights are float32: drawing happens under autocast."""
    if dtype == "half":
        dtype = "bfloat16" if device.type == "cpu" or torch.cuda.is_bf16_supported() else "float16"
    model, tokenizer = loaded(dtype)
    before = torch.get_rng_state(), torch.cuda.get_rng_state() if device.type == "cuda" else None

    def draw(prompts, seed, **more):
        return generate(model, tokenizer, prompts, max_new_tokens=12, do_sample=True, seed=seed, **more)

    assert draw(PROMPTS, 3) == draw(PROMPTS, 3)
    assert draw(PROMPTS, 3) != draw(PROMPTS, 4)
    if dtype == "float32":
        assert draw(PROMPTS, 3)[2] == draw(PROMPTS[2:], 5)[0]
    assert draw(PROMPTS, 3, top_k=1) == draw(PROMPTS, 9, top_k=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    if before[1] is not None:
        assert torch.equal(torch.cuda.get_rng_state(), before[1])


def test_watched_prompts_are_answered_during_a_run(trained, device):
    from llf_core.runs import RunReader, read_status

    folder, code = trained(watched_prompts=["What is 1 plus 2?"], max_steps=2, save_steps=2)
    assert code == 0, read_status(folder).reason
    found = RunReader(folder).samples()
    assert {one["of"] for one in found} == {"base", "tuned"}
