"""The autograd functions of the fast path against torch's own formulas, in float64."""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from hypothesis import given, settings
from hypothesis import strategies as st

from llf_core.acceleration.kernels.attention import (
    BLOCK,
    KEPT,
    Layout,
    attend_branches,
    bounds_of,
    document_attention,
    forks_of,
    signed_sin,
)
from llf_core.acceleration.kernels.linear import Operand, linears, rms_norm, swiglu
from llf_core.acceleration.patching import attention_backend
from llf_core.acceleration.patching.attention_backend import per_document_attention


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum((output * seeded(*output.shape, seed=9 + i).to(output.dtype)).sum() for i, output in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(total, inputs)]


def assert_same(fast, plain, *inputs, tolerance=1e-10):
    for one, other in zip(gradients(fast, *inputs), gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm_is_the_formula(offset):
    def plain(x, weight):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5) * (offset + weight)

    assert_same(lambda x, w: rms_norm(x, w, 1e-5, offset), plain, seeded(2, 7, 16), seeded(16, seed=1))


def test_rms_norm_of_float32_leaves_its_input_alone():
    x = seeded(3, 8, dtype=torch.float32)
    before = x.clone()
    rms_norm(x, torch.ones(8), 1e-5)
    assert torch.equal(x, before)


def test_rms_norm_in_bfloat16_rounds_as_transformers_does():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    module = LlamaRMSNorm(64).bfloat16()
    module.weight.data = seeded(64, dtype=torch.bfloat16)
    x = seeded(5, 64, seed=1, dtype=torch.bfloat16)
    assert torch.equal(rms_norm(x, module.weight, module.variance_epsilon), module(x))


def test_swiglu_is_the_formula():
    assert_same(swiglu, lambda gate, up: F.silu(gate) * up, seeded(2, 5, 8), seeded(2, 5, 8, seed=1))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.data())
def test_linears_are_lora(count, data):
    frozen, adapters = [], []
    for index in range(count):
        out, rank = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 4))
        bias = seeded(out, seed=20 + index) if data.draw(st.booleans()) else None
        frozen.append((seeded(out, 6, seed=index), bias, 0.5 + index, rank))
        if rank:
            adapters += [seeded(rank, 6, seed=30 + index), seeded(out, rank, seed=40 + index)]

    def split(rest):
        rest = iter(rest)
        return [(next(rest), next(rest)) if rank else None for _, _, _, rank in frozen]

    def fast(x, *rest):
        pairs = split(rest)
        return linears(
            x, [Operand(w, b, adapter=pair, scale=s) for (w, b, s, _), pair in zip(frozen, pairs, strict=True)]
        )

    def plain(x, *rest):
        outputs = []
        for (w, b, s, _), pair in zip(frozen, split(rest), strict=True):
            output = F.linear(x, w, b)
            outputs.append(output if pair is None else output + s * F.linear(F.linear(x, pair[0]), pair[1]))
        return tuple(outputs)

    assert_same(fast, plain, seeded(2, 3, 6, seed=50), *adapters)


def test_linears_take_a_transposed_weight_and_an_input_without_gradient():
    x, w, a, b = seeded(4, 6), seeded(6, 5, seed=1), seeded(2, 6, seed=2), seeded(5, 2, seed=3)
    a.requires_grad_()
    (output,) = linears(x, [Operand(w, transposed=True, adapter=(a, b), scale=2.0)])
    output.sum().backward()
    torch.testing.assert_close(output, x @ w + 2 * (x @ a.t()) @ b.t())
    torch.testing.assert_close(a.grad, 2 * (torch.ones(4, 5, dtype=x.dtype) @ b).t() @ x)


LENGTHS = [(1,), (5, 1, 7), (BLOCK + BLOCK // 2, 3), (2, KEPT + BLOCK + 5)]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 1, 3, BLOCK])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_attention_by_documents_is_that_of_each_document(lengths, window, softcap):
    bounds = (0, *torch.tensor(lengths).cumsum(0).tolist())
    layout = Layout(bounds, 0.4, window, softcap)
    q, k, v = seeded(bounds[-1], 4, 6), seeded(bounds[-1], 2, 6, seed=1), seeded(bounds[-1], 2, 8, seed=2)
    attend, by_document = partial(document_attention, layout=layout), partial(per_document_attention, layout=layout)
    assert_same(attend, by_document, q, k, v)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("lengths", [(5, 1, 7), (2, KEPT + BLOCK + 5)])
def test_attention_with_sinks_is_that_of_each_document(lengths, window, softcap):
    """The textbook: one more column of scores, which is dropped after the softmax."""
    bounds = (0, *torch.tensor(lengths).cumsum(0).tolist())
    layout = Layout(bounds, 0.4, window, softcap)

    def textbook(q, k, v, sinks):
        found = []
        for start, end in pairwise(bounds):
            one, keys, values = q[start:end], *(x[start:end].repeat_interleave(2, 1) for x in (k, v))
            scores = torch.einsum("qhd,khd->hqk", one, keys) * 0.4
            scores = scores if softcap is None else (scores / softcap).tanh() * softcap
            seen = torch.ones(end - start, end - start, dtype=torch.bool).tril()
            seen = seen if window is None else seen.triu(1 - window)
            scores = scores.masked_fill(~seen, -torch.inf)
            scores = torch.cat((scores, sinks[:, None, None].expand(-1, end - start, 1)), -1)
            found.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., :-1], values))
        return torch.cat(found)

    given = seeded(bounds[-1], 4, 6), seeded(bounds[-1], 2, 6, seed=1), seeded(bounds[-1], 2, 8, seed=2)
    given = *given, seeded(4, seed=3) * 2
    assert_same(lambda q, k, v, s: document_attention(q, k, v, layout, sinks=s), textbook, *given)
    assert_same(lambda q, k, v, s: per_document_attention(q, k, v, layout, sinks=s), textbook, *given)


def test_attention_gives_zeros_to_tokens_of_no_document():
    layout, several = Layout((0, 5, 11), 0.4), seeded(15, 4, 6, seed=3)
    q, k, v = several, several[:, :2].clone(), several[:, 2:].clone()

    def plain(q, k, v):
        return F.pad(per_document_attention(q[:11], k[:11], v[:11], layout), (0, 0, 0, 0, 0, 4))

    assert_same(lambda *x: document_attention(*x, layout=layout), plain, q, k, v)


@pytest.mark.parametrize("rotary", [6, 4])
def test_attention_turns_as_transformers_does(rotary):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    layout = Layout((0, 4, 9), 0.4)
    angles = seeded(9, rotary // 2, seed=3).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()

    def plain(q, k, v):
        parts = [x.transpose(0, 1)[None] for x in (q[..., :rotary], k[..., :rotary])]
        turned = [x[0].transpose(0, 1) for x in apply_rotary_pos_emb(*parts, cos[None], sin[None])]
        q, k = (torch.cat((one, x[..., rotary:]), -1) for one, x in zip(turned, (q, k), strict=True))
        return per_document_attention(q, k, v, layout)

    def fast(q, k, v):
        return document_attention(q, k, v, layout, cos[:, None], signed_sin(sin)[:, None])

    assert_same(fast, plain, seeded(9, 4, 6), seeded(9, 2, 6, seed=1), seeded(9, 2, 6, seed=2))


def test_attention_in_bfloat16_is_within_its_rounding():
    layout = Layout((0, 100, 130), 0.125)
    q, k, v = (seeded(130, heads, 64, seed=i) for i, heads in enumerate((6, 2, 2)))
    exact = gradients(lambda *x: per_document_attention(*x, layout=layout), q, k, v)
    rough = gradients(lambda *x: document_attention(*x, layout=layout), *(x.bfloat16() for x in (q, k, v)))
    for one, other in zip(rough, exact, strict=True):
        assert (one.double() - other).norm() / other.norm() < 2**-6  # four roundings of 2**-9 and some sums


def test_attention_of_one_document_never_sees_another():
    layout = Layout((0, 5, 11, 14), 0.3)
    q, k, v = seeded(14, 4, 6), seeded(14, 2, 6, seed=1), seeded(14, 2, 6, seed=2)
    before = document_attention(q, k, v, layout)
    for x in (q, k, v):
        x[5:11] += 1
    after = document_attention(q, k, v, layout)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[11:], after[11:])
    assert not torch.allclose(before[5:11], after[5:11])


FORKS = [
    ((0, 9), ((3, 6),)),
    ((0, 40, 75, 80), ((20, 31), (41, 60), (78, 79))),
    ((0, BLOCK + 300), ((100, BLOCK + 20),)),
    ((0, KEPT + BLOCK), ((30, 40),)),
    ((0, 20), ((0, 12),)),
]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize(("bounds", "forks"), FORKS)
def test_the_branches_of_a_document_do_not_see_each_other(bounds, forks, window, softcap):
    layout = Layout(bounds, 0.4, window, softcap, forks)
    q, k, v = seeded(bounds[-1], 4, 6), seeded(bounds[-1], 2, 6, seed=1), seeded(bounds[-1], 2, 8, seed=2)

    def plain(q, k, v):
        pieces = []
        for (start, end), (fork, split) in zip(pairwise(bounds), forks, strict=True):
            one, other = list(range(start, split)), [*range(start, fork), *range(split, end)]
            first, second = (
                per_document_attention(
                    *(x[rows] for x in (q, k, v)), layout=Layout((0, len(rows)), 0.4, window, softcap)
                )
                for rows in (one, other)
            )
            pieces += [first, second[fork - start :]]
        return torch.cat(pieces)

    assert_same(lambda *x: document_attention(*x, layout=layout), plain, q, k, v)

    def turned(layout, q, k, v):
        return per_document_attention(q, k, v, layout)

    assert_same(lambda *x: attend_branches(turned, layout, *x), plain, q, k, v)


def by_the_formula(q, k, v, bounds, scale, window):
    """What torch's `varlen_attn` computes, one query after the other; keys may have fewer heads."""
    output = torch.zeros_like(q)
    repeats = q.shape[1] // k.shape[1]
    for start, end in pairwise(bounds.tolist()):
        for at in range(start, end):
            first = start if window is None else max(start, at - window)
            for head in range(q.shape[1]):
                shares = (k[first : at + 1, head // repeats] @ q[at, head] * scale).softmax(0)
                output[at, head] = shares @ v[first : at + 1, head // repeats]
    return output


def of_2_10(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert is_causal
    assert q.shape == k.shape
    return by_the_formula(q, k, v, cu_seq_q, q.shape[-1] ** -0.5, None)


def of_2_11(
    q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1), seqused_k=None
):
    assert q.shape == k.shape
    return of_2_12(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


def of_2_12(
    q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    assert all(x.is_contiguous() for x in (q, k, v))
    assert window_size[1] == 0
    return by_the_formula(q, k, v, cu_seq_q, scale, None if window_size[0] < 0 else window_size[0])


@pytest.mark.parametrize("heads", [4, 2], ids=["equal", "grouped"])
@pytest.mark.parametrize("version", [of_2_10, of_2_11, of_2_12])
def test_each_torchs_form_of_flash_attention_is_asked_for_the_same(monkeypatch, version, heads):
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", version)
    attention_backend.varlen_arguments.cache_clear()
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([0, 3, 10], dtype=torch.int32)
    # as attention hands them on: views of [batch, heads, tokens, dim]
    q, k, v = (
        torch.randn(1, count, 10, 8, generator=generator, dtype=torch.float64)[0].transpose(0, 1)
        for count in (4, heads, heads)
    )
    try:
        for window in (None, 3):
            if window is not None and version is of_2_10:
                assert "window_size" not in attention_backend.varlen_arguments()
                continue
            layout = Layout((0, 3, 10), 0.2, window)
            found = attention_backend._varlen(q, k, v, bounds, 7, layout)
            torch.testing.assert_close(found, attention_backend.per_document_attention(q, k, v, layout))
    finally:
        attention_backend.varlen_arguments.cache_clear()


def test_a_torch_without_flash_attention_is_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    attention_backend.varlen_arguments.cache_clear()
    try:
        assert attention_backend.varlen_arguments() == frozenset()
    finally:
        attention_backend.varlen_arguments.cache_clear()


def test_the_device_is_waited_for_once_a_batch_and_not_in_every_layer(monkeypatch):
    asked = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(1) or plain(self))
    bounds, forks = torch.tensor([0, 3, 10], dtype=torch.int32), torch.tensor([[1, 2], [5, 8]], dtype=torch.int32)
    for _ in range(3):
        assert bounds_of(bounds) == (0, 3, 10)
        assert forks_of(forks) == ((1, 2), (5, 8))
    assert len(asked) == 2
    bounds[1] = 4
    assert bounds_of(bounds) == (0, 4, 10)
    with torch.inference_mode():
        assert bounds_of(torch.tensor([0, 2])) == (0, 2)
