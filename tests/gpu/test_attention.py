"""Every way in which attention is computed, on every kind of batch, against documents alone in float64 on the CPU."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from llf_core.acceleration.kernels.attention import Layout
from llf_core.acceleration.patching import attention_backend
from llf_core.acceleration.patching.causal_head import forward
from llf_core.acceleration.patching.install import accelerate
from llf_core.data import Collator
from llf_core.data.collate import PairCollator
from llf_core.data.packing import PackedRows

# Largest relative distance (of norms) from float64. A format's step is 2^-8 (bfloat16), 2^-11 (float16), 2^-24
# (float32): probabilities and outputs are rounded once each, gradients some times more, and TF32 is off.
ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
BOUNDS = (0, 5, 7, 70, 203)
VARIANTS = {
    "plain": {},
    "window": {"window": 16},
    "softcap": {"softcap": 20.0},
    "sinks": {"sinks": True},
    "filled": {"filler": 9},
    "branches": {"forks": ((2, 4), (0, 1), (16, 40), (100, 120))},
    "window-branches": {"forks": ((2, 4), (0, 1), (16, 40), (100, 120)), "window": 16},
    "odd-dim": {"dim": 20},
    "wide-dim": {"dim": 128},
    "one-head-a-key": {"heads": (4, 4)},
}


def seen(length, fork, window):
    """`[length, length]`, true where a token of a document sees another: in plain loops, apart from our code."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        for key in range(query + 1):
            if fork is None:
                mask[query, key] = window is None or query - key < window
                continue
            first, second = fork
            if query >= second and first <= key < second:
                continue
            place = query - (second - first) if query >= second else query
            other = key - (second - first) if key >= second else key
            mask[query, key] = window is None or place - other < window
    return mask


def reference(q, k, v, *, forks=None, window=None, softcap=None, sinks=None):
    """Each document alone by the textbook's formula, in the dtype of `q`."""
    repeats = q.shape[1] // k.shape[1]
    pieces = []
    for number, (start, end) in enumerate(pairwise(BOUNDS)):
        fork = None if forks is None else tuple(place - start for place in forks[number])
        own_q = q[start:end].transpose(0, 1)
        own_k, own_v = (x[start:end].transpose(0, 1).repeat_interleave(repeats, 0) for x in (k, v))
        scores = own_q @ own_k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~seen(end - start, fork, window), -torch.inf)
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None, None].expand(-1, end - start, 1)), -1)
        shares = scores.softmax(-1)[..., : end - start]
        pieces.append((shares @ own_v).transpose(0, 1))
    return torch.cat(pieces)


def distance(found, expected):
    return float((found.detach().cpu().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_side_by_side_are_what_each_is_alone(variant, device, dtypes):
    """Ours on a CPU; FlashAttention where the card and torch have it, else torch's own attention, on a card."""
    options = dict(VARIANTS[variant])
    dim, (heads, keys), filler = options.pop("dim", 32), options.pop("heads", (4, 2)), options.pop("filler", 0)
    with_sinks, forks = options.pop("sinks", False), options.pop("forks", None)
    if forks is not None:  # counted from each document's beginning
        forks = tuple((start + a, start + b) for start, (a, b) in zip(BOUNDS, forks, strict=False))
    generator = torch.Generator().manual_seed(0)
    tokens = BOUNDS[-1] + filler
    q, k, v = (
        torch.randn(tokens, count, dim, generator=generator, dtype=torch.float64) for count in (heads, keys, keys)
    )
    sinks = torch.randn(heads, generator=generator, dtype=torch.float64) if with_sinks else None
    upstream = torch.randn(tokens, heads, dim, generator=generator, dtype=torch.float64)
    layer = torch.nn.Module()
    for dtype in dtypes:
        exact = [x.to(dtype).double().requires_grad_() for x in (q, k, v)]
        expected = reference(*(x[: BOUNDS[-1]] for x in exact), forks=forks, sinks=sinks, **options)
        expected_grads = torch.autograd.grad((expected * upstream[: BOUNDS[-1]]).sum(), exact)
        given = [x.to(device, dtype).requires_grad_() for x in (q, k, v)]
        cu = torch.tensor(BOUNDS, dtype=torch.int32, device=device)
        output, _ = attention_backend.attention(
            layer,
            *(x.transpose(0, 1)[None] for x in given),
            attention_mask=None,
            sliding_window=options.get("window"),
            softcap=options.get("softcap"),
            cu_seq_lens_q=cu,
            max_length_q=max(b - a for a, b in pairwise(BOUNDS)),
            forks=None if forks is None else torch.tensor(forks, dtype=torch.int32, device=device),
            s_aux=None if sinks is None else sinks.to(device, dtype),
        )
        assert output.shape == (1, tokens, heads, dim)
        assert output.device.type == device.type
        assert not output[0, BOUNDS[-1] :].any()
        assert distance(output[0, : BOUNDS[-1]], expected) < ROUNDING[dtype], dtype
        found = torch.autograd.grad((output[0].float() * upstream.to(device).float()).sum(), given)
        for one, other in zip(found, expected_grads, strict=True):
            assert distance(one, other) < 2 * ROUNDING[dtype], dtype


def test_flash_attention_is_what_a_card_computes_documents_by(device, dtypes, note):
    q = torch.randn(10, 4, 32, device=device, dtype=dtypes[-1])
    layout = Layout((0, 4, 10), 32**-0.5)
    new = device.type == "cuda" and torch.cuda.get_device_capability(device) >= attention_backend.FLASH_CAPABILITY
    assert attention_backend._flash_knows(q, q, layout) == (new and "cu_seq_q" in attention_backend.varlen_arguments())
    assert not attention_backend._flash_knows(q.float(), q.float(), layout)
    known = ", ".join(sorted(attention_backend.varlen_arguments())) or "nothing"
    note(f"torch {torch.__version__}, varlen_attn takes {known}")


@pytest.mark.parametrize("window", [None, 16])
def test_torchs_own_attention_is_the_same(window, device, dtypes):
    """What stands in where FlashAttention cannot be had: one document after the other."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(BOUNDS[-1], count, 32, generator=generator, dtype=torch.float64) for count in (4, 2, 2))
    for dtype in dtypes:
        exact = [x.to(dtype).double() for x in (q, k, v)]
        given = [x.to(device, dtype) for x in (q, k, v)]
        found = attention_backend.per_document_attention(*given, layout=Layout(BOUNDS, 32**-0.5, window))
        assert distance(found, reference(*exact, window=window)) < ROUNDING[dtype], dtype


# ---- whole models ---------------------------------------------------------------------------------
SMALL = {
    "vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=12)),
    "gemma2-softcap": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=16, sliding_window=12, attn_logit_softcapping=30.0)
    ),
}
# Relative distances of summed losses: a mean over some hundred tokens of rounding at each of the layers.
LOSS = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
LENGTHS = (4, 40, 6, 33, 5, 21, 9, 60)


@pytest.fixture(scope="module")
def examples():
    generator = torch.Generator().manual_seed(1)
    return [
        {"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :], "number": number}
        for number, length in enumerate(LENGTHS)
        for ids in [torch.randint(5, 90, (length,), generator=generator).tolist()]
    ]


def alone(model, ids, labels):
    """The summed loss of one document by a model's own plain forward."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum")


def summed(hidden, head, batch):
    from llf_core.acceleration.kernels.cross_entropy import nll_sum

    targets = F.pad(batch["labels"], (0, 1), value=-100)[..., 1:]
    return nll_sum(hidden, head, targets)


def to_device(batch, device):
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


@pytest.fixture(scope="module", params=list(MODELS))
def exact(request):
    """A model in float64 with its own attention, on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[request.param]()
    model.config._attn_implementation = "eager"
    return model.double().eval()


WAYS = [
    (asked, kind)
    for asked in ("ours", "theirs")
    for kind in ("flattened", "packed", "left-padded", "right-padded")
    if asked == "ours" or "padded" in kind
]
"""By whose attention which kind of batch is computed; a model's own takes padded ones alone."""


@pytest.mark.parametrize(("asked", "kind"), WAYS)
def test_a_batch_costs_what_its_documents_cost_alone(exact, examples, kind, asked, device, dtypes, tiny_tokenizer):
    with torch.no_grad():
        expected = sum(alone(exact, one["input_ids"], one["labels"]) for one in examples).item()
    for dtype in dtypes:
        model = copy.deepcopy(exact).to(device, dtype)
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
        done = accelerate(model, attention=asked == "ours")
        assert done.flattens == (asked == "ours"), done.notes
        if kind == "packed":
            lengths = torch.tensor(LENGTHS).numpy()
            from datasets import Dataset

            rows = PackedRows.of(Dataset.from_list(examples), lengths, capacity=70, seed=0)
            batches = [
                Collator(tiny_tokenizer, flatten=True, fill=64 if device.type == "cpu" else 1)([row]) for row in rows
            ]
        else:
            batches = [Collator(tiny_tokenizer, flatten=kind == "flattened")(examples)]
        if kind == "left-padded":
            batches = [moved_to_the_left(batch) for batch in batches]
        total = 0.0
        for batch in batches:
            told = to_device(batch, device)
            with torch.no_grad():
                total += float(forward(model, told, lambda hidden, head, told=told: summed(hidden, head, told)))
        assert total == pytest.approx(expected, rel=LOSS[dtype]), dtype


def moved_to_the_left(batch):
    """A padded batch with its padding in front, and positions that begin at 0."""
    whole = batch["attention_mask"].shape[1]
    lengths = batch["attention_mask"].sum(1).tolist()
    rolled = {
        name: torch.stack([row.roll(whole - length) for row, length in zip(batch[name], lengths, strict=True)])
        for name in ("input_ids", "attention_mask", "labels")
    }
    places = (rolled["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return batch | rolled | {"position_ids": places}


def test_branches_of_a_prompt_cost_what_both_cost_alone(exact, device, dtypes, tiny_tokenizer):
    """A batch of preference pairs: the prompt is read once, and neither answer sees the other."""
    generator = torch.Generator().manual_seed(2)
    pairs = []
    for shared, chosen, rejected in ((7, 5, 9), (20, 3, 2), (1, 30, 4)):
        prompt, *answers = (
            torch.randint(5, 90, (n,), generator=generator).tolist() for n in (shared, chosen, rejected)
        )
        first, second = (prompt + answer for answer in answers)
        pairs.append(
            {
                "input_ids": first, "labels": [-100] * shared + answers[0], "rejected_ids": second,
                "rejected_labels": [-100] * shared + answers[1], "number": len(pairs),
            }
        )  # fmt: skip
    batch = PairCollator(tiny_tokenizer, flatten=True, fork=True)(pairs)
    assert "forks" in batch
    with torch.no_grad():
        expected = [
            alone(exact, pair[ids], pair[labels]).item()
            for pair in pairs
            for ids, labels in (("input_ids", "labels"), ("rejected_ids", "rejected_labels"))
        ]
    for dtype in dtypes:
        model = copy.deepcopy(exact).to(device, dtype)
        model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
        assert accelerate(model).forks
        told = to_device(batch, device)
        with torch.no_grad():
            found = forward(model, told, lambda hidden, head, told=told: answer_costs(hidden, head, told))
        assert found.tolist() == pytest.approx(expected, rel=2 * LOSS[dtype]), dtype


def answer_costs(hidden, head, batch):
    """The summed loss of each answer of a batch of pairs."""
    from llf_core.acceleration.kernels.cross_entropy import log_probs

    rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["predictors"])
    costs = -log_probs(rows, head, batch["targets"])
    count = 2 * batch["groups"]
    return torch.zeros(count, dtype=costs.dtype, device=costs.device).index_add_(0, batch["answers"], costs)
