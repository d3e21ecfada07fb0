"""Noise on embeddings: as strong as the paper says for each document, however the batch is made."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llf_core.config import RunConfig
from llf_core.data import Collator
from llf_core.modifiers.modifier import apply_modifiers
from llf_core.modifiers.neftune import add_noise
from tests.tiny import tiny_llama

HIDDEN = 64
EXAMPLES = [{"input_ids": [7] * size, "labels": [7] * size} for size in (4, 100)]


@pytest.fixture(params=["plain", "peft"])
def noise(request, tiny_tokenizer):
    """`noise(batch) -> largest change of the embeddings at each token, [batch, seq]`."""
    model = tiny_llama(tiny_tokenizer)
    if request.param == "peft":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    add_noise(model, alpha=5.0)
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: seen.append(output.detach()))

    def measure(batch):
        seen.clear()
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        model(**inputs, use_cache=False)
        plain = nn.functional.embedding(batch["input_ids"], model.get_input_embeddings().weight)
        return (seen[0] - plain).abs().amax(-1)

    measure.model = model.train()
    return measure


@pytest.mark.parametrize("flatten", [False, True])
def test_each_documents_noise_is_that_of_its_own_length(noise, tiny_tokenizer, flatten):
    batch = Collator(tiny_tokenizer, flatten=flatten)(EXAMPLES)
    changes = noise(batch)
    short, long = (changes[0, :4], changes[0, 4:]) if flatten else (changes[0, :4], changes[1, :100])
    for change, size in ((short, 4), (long, 100)):
        bound = 5.0 / (size * HIDDEN) ** 0.5
        assert change.max() <= bound * 1.0001
        assert change.max() > 0.9 * bound  # of at least 4 · 64 uniform numbers


def test_a_packed_rows_noise_is_that_of_its_documents(noise, tiny_tokenizer):
    rows = [{"examples": EXAMPLES}]
    filled = Collator(tiny_tokenizer, flatten=True, fill=64)(rows)
    changes = noise(filled)[0]
    for change, size in ((changes[:4], 4), (changes[4:104], 100)):
        assert 0.9 < change.max() / (5.0 / (size * HIDDEN) ** 0.5) <= 1.0001


def test_the_embeddings_keep_their_dtype(noise, tiny_tokenizer):
    noise.model.to(torch.bfloat16)
    assert (
        noise(Collator(tiny_tokenizer, flatten=True)(EXAMPLES)).dtype == torch.bfloat16
    )  # else layers would refuse them


def test_nothing_is_added_while_evaluating(noise, tiny_tokenizer):
    noise.model.eval()
    assert noise(Collator(tiny_tokenizer, flatten=True)(EXAMPLES)).max() == 0


def test_a_forward_without_lengths_counts_the_whole_row(noise):
    change = noise({"input_ids": torch.full((2, 9), 7)})
    bound = 5.0 / (9 * HIDDEN) ** 0.5
    assert 0.9 * bound < change.max() <= bound * 1.0001


def test_a_run_applies_it_and_removes_it_before_the_result_is_saved(tiny_tokenizer):
    model = tiny_llama(tiny_tokenizer).train()
    ids = torch.tensor([[7, 8, 9]])
    plain = nn.functional.embedding(ids, model.get_input_embeddings().weight)
    assert apply_modifiers(model, RunConfig.load({"dataset": "llf_demo"})) == ()
    (modifier,) = apply_modifiers(model, RunConfig.load({"dataset": "llf_demo", "neftune_noise_alpha": 5}))
    assert not torch.equal(model.get_input_embeddings()(ids), plain)
    modifier.remove(model)
    assert torch.equal(model.get_input_embeddings()(ids), plain)
    assert not model._forward_pre_hooks
