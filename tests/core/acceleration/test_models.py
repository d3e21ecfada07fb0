"""Real architectures, tiny: a flattened batch on the fast path against the plain model on one document at a time."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from peft import LoraConfig, get_peft_model

from llf_core.acceleration.patching.install import accelerate
from llf_core.data import Collator
from llf_core.stages.sft import SFT
from tests.core.acceleration.architectures import REFUSED, VOCAB, tiny

LENGTHS = (11, 7, 14)
# What the fast path finds in a model of two layers, full or with LoRA on all linear layers.
PARTS = {
    "llama": "2 MLPs, 2 attentions, 5 norms",
    "mistral": "2 MLPs, 2 attentions, 5 norms",
    "qwen2": "2 MLPs, 2 attentions, 5 norms",
    "qwen3": "2 MLPs, 2 attentions, 9 norms",
    "qwen3-moe": "2 attentions, 9 norms",
    "mixtral": "2 attentions, 5 norms",
    "gemma": "2 MLPs, 2 attentions, 5 norms",
    "gemma2": "2 MLPs, 2 attentions, 9 norms",
    "gemma3": "2 MLPs, 2 attentions, 13 norms",
    "phi": "2 attentions",
    "phi3": "2 MLPs, 2 attentions, 5 norms",
    "gpt2": "",
    "gpt-neox": "",
    "olmo2": "2 MLPs, 2 attentions, 9 norms",
    "granite": "2 MLPs, 2 attentions, 5 norms",
    "cohere": "2 MLPs",
    "starcoder2": "2 attentions",
    "smollm3": "2 MLPs, 2 attentions, 5 norms",
    "opt": "",
    "gpt-oss": "5 norms",
}
OFTEN = ("llama", "gemma2", "gpt2", "gpt-oss")  # in every run of the tests; the others in `make test-all`
MATRIX = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.long) for name in PARTS]


def features(lengths=LENGTHS, seed=3):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, length in enumerate(lengths):
        ids = torch.randint(3, VOCAB, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :], "index": number})
    return made


class NoTokenizer:
    pad_token_id = eos_token_id = 0


def batch(of=None, flatten=True):
    return Collator(NoTokenizer(), flatten=flatten)(of or features())


def plain_loss(model, of=None):
    """The sum of the documents' losses, each of them alone, by the textbook."""
    total = torch.zeros(())
    for one in of or features():
        logits = model(input_ids=torch.tensor([one["input_ids"]])).logits[0].float()
        total = total + F.cross_entropy(logits[:-1], torch.tensor(one["labels"][1:]), reduction="sum")
    return total


def gradients(model):
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def exact_copy(model):
    """In float64, where a formula and its rounding can be told apart."""
    exact = copy.deepcopy(model).double()
    inner = exact.get_base_model() if hasattr(exact, "get_base_model") else exact
    if hasattr(inner, "set_experts_implementation"):
        inner.set_experts_implementation("eager")
    return exact


def distance(got, wanted):
    one, other = (torch.cat([each[name].flatten().double() for name in wanted]) for each in (got, wanted))
    return float((one - other).norm() / other.norm())


def assert_trains_alike(fast, plain, of=batch, autocast=None, slack=1e-6):
    """Equal losses, and gradients as near to those of float64 as the plain path's own.

    Args:
        fast: accelerated.
        plain: the same model, not accelerated.
        of: makes the batch.
        autocast: None, or the dtype that the trainer computes in.
        slack: what rounding alone may add to the gradients' relative error in float32.
    """
    exact = exact_copy(plain)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        losses = [SFT().loss_sum(fast, of()), plain_loss(plain)]
    losses.append(plain_loss(exact))
    for loss in losses:
        loss.backward()
    got, rounded, wanted = (gradients(model) for model in (fast, plain, exact))
    assert wanted
    assert got.keys() == wanted.keys() == rounded.keys()
    near = 1e-6 if autocast is None else 2**-7
    assert abs(losses[0] - losses[2]) / losses[2] < near
    errors = [distance(one, wanted) for one in (got, rounded)]
    assert errors[0] < (errors[1] + slack if autocast is None else 2 * errors[1]), errors
    # Each by itself; one that should be zero, as that of the keys' bias, has rounding alone.
    scale = torch.stack([one.norm() for one in wanted.values()]).norm()
    for name, one in wanted.items():
        away = (got[name].double() - one).norm()
        assert away < (1e-5 if autocast is None else 0.2) * (one.norm() + 0.05 * scale), name


def with_lora(model, seed=5, **options):
    """LoRA with B's that are no zeros."""
    asked = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
    model.requires_grad_(requires_grad=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **asked))
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                if "lora_B" in name:
                    parameter.data.normal_(0, 0.05)
    return wrapped


def pair(model):
    """The accelerated model and a plain one."""
    plain = copy.deepcopy(model).train()
    done = accelerate(model.train())
    assert done.flattens, done.why
    return model, plain


@pytest.mark.parametrize("name", MATRIX)
def test_full_training(name):
    model = tiny(name).train()
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert done.flattens
    assert done.notes[0] == f"Fast path: {', '.join(filter(None, ['batches without padding', PARTS[name]]))}."
    assert_trains_alike(model, plain)


@pytest.mark.parametrize("name", MATRIX)
def test_lora(name):
    fast, plain = pair(with_lora(tiny(name)))
    assert_trains_alike(fast, plain)


@pytest.mark.parametrize("name", MATRIX)
def test_lora_in_bfloat16_as_the_trainer_computes(name):
    fast, plain = pair(with_lora(tiny(name, torch.bfloat16)))
    assert_trains_alike(fast, plain, autocast=torch.bfloat16)


@pytest.mark.parametrize("name", MATRIX)
def test_what_a_packed_row_is_filled_up_with_changes_nothing(name):
    fast, plain = pair(with_lora(tiny(name)))
    filled = Collator(NoTokenizer(), flatten=True, fill=64)([{"examples": features()}])
    assert filled["input_ids"].shape == (1, 64)
    assert_trains_alike(fast, plain, of=lambda: filled)


@pytest.mark.parametrize("name", MATRIX)
def test_a_changed_document_moves_no_other(name):
    model = tiny(name).eval()
    assert accelerate(model).flattens
    before, after = features(), features()
    after[1]["input_ids"] = [(token + 1) % VOCAB for token in after[1]["input_ids"]]
    with torch.no_grad():
        one, other = (log_probs_of(model, batch(of)) for of in (before, after))
    start, end = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
    assert not torch.equal(one[start:end], other[start:end])
    if "mo" in name or name in {"mixtral", "gpt-oss"}:  # the sums of an expert go over the tokens of all documents
        torch.testing.assert_close(one[end:], other[end:], rtol=0, atol=1e-5)
        torch.testing.assert_close(one[:start], other[:start], rtol=0, atol=1e-5)
        return
    assert torch.equal(one[:start], other[:start])
    assert torch.equal(one[end:], other[end:])


def log_probs_of(model, of):
    from llf_core.acceleration.patching.causal_head import forward

    return forward(model, of, lambda hidden, head: head.logits(hidden))[0].log_softmax(-1)


@pytest.mark.parametrize("name", MATRIX)
def test_padded_batches_and_generation_are_those_of_the_plain_model(name):
    model = tiny(name).eval()
    plain = copy.deepcopy(model)
    assert accelerate(model).flattens
    ids = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]])
    mask = (ids != 0).long()
    with torch.no_grad():
        one, other = (each(input_ids=ids, attention_mask=mask).logits for each in (model, plain))
        torch.testing.assert_close(one[mask.bool()], other[mask.bool()], rtol=1e-4, atol=1e-4)
        texts = [
            each.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
            for each in (model, plain)
        ]
    assert torch.equal(*texts)


# OPT counts by its mask, and gpt-oss makes its masks without positions.
@pytest.mark.parametrize("name", [one for one in MATRIX if one.values[0] not in {"opt", "gpt-oss"}])
def test_a_foreign_flattened_batch_is_kept_apart_by_its_positions(name):
    model = tiny(name).eval()
    assert accelerate(model).flattens
    ours = batch()
    with torch.no_grad():
        foreign = model(input_ids=ours["input_ids"], position_ids=ours["position_ids"], use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=torch.tensor([one["input_ids"]])).logits[0] for one in features()])
    torch.testing.assert_close(foreign, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "reason"), list(REFUSED.items()))
def test_models_that_mix_documents_are_refused_and_stay_right(name, reason):
    model = tiny(name).train()
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert not done.flattens
    assert reason in done.why
    assert model.config._attn_implementation == plain.config._attn_implementation
    assert_trains_alike(model, plain, of=lambda: batch(flatten=False), slack=5e-6)  # padding makes other sums
