"""Log-probabilities and their sum against plain logits and PyTorch's cross-entropy, in float64 where it is exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from llf_core.acceleration.kernels import cross_entropy
from llf_core.acceleration.kernels.cross_entropy import log_probs, nll_sum
from llf_core.acceleration.patching.causal_head import LOGITS, Head


def made(n=7, width=6, vocab=11, dtype=torch.float64, seed=0, spread=1.0):
    """Rows, weight, bias and targets."""
    generator = torch.Generator().manual_seed(seed)
    rows, weight, bias = (
        (torch.randn(*shape, generator=generator, dtype=torch.float64) * spread).to(dtype)
        for shape in ((n, width), (vocab, width), (vocab,))
    )
    return rows, weight, bias, torch.randint(0, vocab, (n,), generator=generator)


def plain_sum(hidden, head, targets, smoothing=0.0):
    """The second implementation: all logits at once."""
    logits = head.logits(hidden).flatten(0, -2)
    exact = torch.promote_types(logits.dtype, torch.float32)
    return functional.cross_entropy(logits.to(exact), targets.flatten(), reduction="sum", label_smoothing=smoothing)


def small_chunks(monkeypatch, chunk, block):
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", chunk)
    monkeypatch.setitem(cross_entropy.BLOCK, "cpu", block)


def test_uniform_logits_cost_log_vocab_each():
    assert math.isclose(nll_sum(torch.zeros(2, 8), LOGITS, torch.tensor([3, 5])).item(), 2 * math.log(8), rel_tol=1e-6)


def test_by_hand():
    # h = (1), W = (0, ln 3): the second token has 3/4.
    head = Head(torch.tensor([[0.0], [math.log(3.0)]]))
    rows = torch.tensor([[1.0], [1.0]])
    assert log_probs(rows, head, torch.tensor([1, 0])).exp().tolist() == pytest.approx([0.75, 0.25], rel=1e-6)
    # 0.8 · ln 4/3 + 0.2 · mean(ln 4, ln 4/3)
    expected = 0.8 * math.log(4 / 3) + 0.2 * (math.log(4) + math.log(4 / 3)) / 2
    assert nll_sum(rows[:1], head, torch.tensor([1]), 0.2).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_by_hand():
    # d nll / d h = Σ p W - W[target] = 3/4 ln 3 - 0.
    head = Head(torch.tensor([[0.0], [math.log(3.0)]]))
    row = torch.ones(1, 1, requires_grad=True)
    (3.0 * nll_sum(row, head, torch.tensor([0]))).backward()
    assert row.grad.item() == pytest.approx(3 * 0.75 * math.log(3.0), rel=1e-6)


SHAPES = {
    "plain": {},
    "scale": {"scale": 0.25},
    "softcap": {"softcap": 2.0},
    "scale and softcap": {"scale": 1.7, "softcap": 3.0},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("trained", ["rows", "rows, weight", "rows, weight, bias", "weight", "bias"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_sum_and_gradients_in_float64(monkeypatch, shape, trained, smoothing):
    small_chunks(monkeypatch, 3 * 11 * 8, 2 * 11 * 8)  # chunks of three rows, blocks of two
    rows, weight, bias, targets = made()
    targets[[1, 4]] = -100
    ours = {"rows": rows.clone(), "weight": weight.clone(), "bias": bias.clone()}
    theirs = {name: tensor.clone() for name, tensor in ours.items()}
    for name in trained.split(", "):
        ours[name].requires_grad_()
        theirs[name].requires_grad_()
    loss = nll_sum(ours["rows"], Head(ours["weight"], ours["bias"], **shape), targets, smoothing)
    expected = plain_sum(theirs["rows"], Head(theirs["weight"], theirs["bias"], **shape), targets, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("trained", [(True, False, False), (True, True, True), (False, True, False)])
def test_gradcheck_of_log_probs(monkeypatch, shape, trained):
    small_chunks(monkeypatch, 3 * 11 * 8, 2 * 11 * 8)
    *inputs, targets = made(5)
    inputs = [tensor.requires_grad_(wanted) for tensor, wanted in zip(inputs, trained, strict=True)]

    def function(rows, weight, bias):
        return log_probs(rows, Head(weight, bias, **shape), targets)

    assert torch.autograd.gradcheck(function, inputs)


def test_gradcheck_of_logits():
    _, _, _, targets = made(4, vocab=5)
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_probs(x, LOGITS, targets), [logits])
    assert torch.autograd.gradcheck(lambda x: nll_sum(x, LOGITS, targets, 0.2), [logits])


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    vocab=st.integers(2, 13),
    chunk=st.integers(1, 2000),
    block=st.integers(1, 1000),
    kept=st.floats(0, 1),
    seed=st.integers(0, 99),
    trains=st.booleans(),
)
def test_any_mask_and_any_border(batch, length, vocab, chunk, block, kept, seed, trains):
    rows, weight, _, _ = made(batch * length, 4, vocab, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocab, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) > kept] = -100
    hidden = rows.view(batch, length, 4)
    pairs = []
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch, chunk, block)
        for function in (nll_sum, plain_sum):
            h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trains)
            loss = function(h, Head(w), targets)
            loss.backward()
            pairs.append((loss.detach(), h.grad, w.grad if trains else h.grad))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_same_whatever_the_chunks(monkeypatch):
    rows, weight, _, targets = made(40, 16, 300, torch.float32)
    results = []
    for chunk, block in ((1 << 30, 1 << 30), (300 * 4 * 7, 300 * 4 * 3)):
        small_chunks(monkeypatch, chunk, block)
        h = rows.clone().requires_grad_()
        loss = nll_sum(h, Head(weight), targets)
        loss.backward()
        results.append((loss.detach(), h.grad))
    torch.testing.assert_close(*(loss for loss, _ in results), rtol=1e-6, atol=0)
    torch.testing.assert_close(*(grad for _, grad in results), rtol=1e-5, atol=1e-6)


def test_float32_to_a_millionth():
    rows, weight, bias, targets = made(200, 64, 1000, torch.float32)
    exact = plain_sum(rows.double(), Head(weight.double(), bias.double()), targets)
    loss = nll_sum(rows, Head(weight, bias), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trains", [False, True])
def test_half_precision_within_its_rounding(monkeypatch, dtype, trains):
    rows, weight, _, targets = made(100, 32, 500, dtype, spread=0.5)
    small_chunks(monkeypatch, 500 * 2 * 30, 500 * 4 * 8)
    ours, theirs, exact = (
        (rows.to(kind).clone().requires_grad_(), weight.to(kind).clone().requires_grad_(trains))
        for kind in (dtype, dtype, torch.float64)
    )
    loss, plain = nll_sum(ours[0], Head(ours[1]), targets), plain_sum(theirs[0], Head(theirs[1]), targets)
    true = plain_sum(exact[0], Head(exact[1]), targets)
    # The same logits, so the same loss; against exact logits it is off by their rounding.
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    for result in (loss, plain, true):
        (result / 50).backward()
    # Gradients: relative distance of norms, one unit of the dtype (2^-8, 2^-11) for three roundings on the way.
    unit = torch.finfo(dtype).eps
    for one, other, truth in zip(ours, theirs, exact, strict=True):
        if truth.grad is not None:
            assert (one.grad.double() - truth.grad).norm() <= 1.0 * unit * truth.grad.norm()
            assert one.grad.dtype == other.grad.dtype == dtype


def test_far_tails_stay_exact():
    # The target's probability is e^-500: nothing may underflow on the way.
    rows = torch.tensor([[500.0, 0.0]], requires_grad=True)
    loss = nll_sum(rows, LOGITS, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 500.0
    assert rows.grad.tolist() == [[1.0, -1.0]]


def test_nan_is_news():
    assert math.isnan(nll_sum(torch.tensor([[math.nan, 0.0]]), LOGITS, torch.tensor([1])).item())


def test_nothing_learned_is_zero_with_a_graph():
    rows, weight, _, _ = made(4)
    rows.requires_grad_()
    weight.requires_grad_()
    loss = nll_sum(rows, Head(weight), torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert rows.grad.eq(0).all()
    assert weight.grad.eq(0).all()


def test_log_probs_of_no_rows():
    _, weight, _, targets = made()
    assert log_probs(weight[:0], Head(weight), targets[:0]).shape == (0,)


@pytest.mark.parametrize("trains", [False, True])
def test_autocast_multiplies_in_bfloat16_as_the_plain_path(trains):
    rows, weight, _, targets = made(50, 32, 400, torch.float32, spread=0.5)
    results = []
    for function in (nll_sum, plain_sum):
        h, w = rows.clone().requires_grad_(), weight.clone().requires_grad_(trains)
        with torch.autocast("cpu", torch.bfloat16):
            loss = function(h, Head(w), targets)
        loss.backward()
        results.append((loss, h.grad, w.grad))
    (loss, h, w), (plain, plain_h, plain_w) = results
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)
    assert abs(loss - plain_sum(rows, Head(weight), targets)) > 1e-6 * loss.abs(), "the products were not bfloat16"
    assert h.dtype == torch.float32
    assert (h - plain_h).norm() < 2**-8 * plain_h.norm()
    if trains:
        assert w.dtype == torch.float32
        assert (w - plain_w).norm() < 2**-8 * plain_w.norm()


def test_a_second_backward_through_a_trained_head_is_refused():
    rows, weight, _, targets = made()
    loss = nll_sum(rows.requires_grad_(), Head(weight.requires_grad_()), targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Largest(TorchDispatchMode):
    """The largest tensor, in bytes, that any operation wrote."""

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if isinstance(out, torch.Tensor) and out._base is None:
            self.bytes = max(self.bytes, out.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("kind", ["frozen", "trained", "log_probs, trained", "no grad", "soft cap"])
def test_no_tensor_as_large_as_the_logits_is_ever_made(monkeypatch, kind):
    n, width, vocab = 256, 8, 2000
    small_chunks(monkeypatch, vocab * 4 * 16, vocab * 4 * 4)
    rows, weight, _, targets = made(n, width, vocab, torch.float32)
    rows.requires_grad_(kind != "no grad")
    head = Head(weight.requires_grad_("trained" in kind), softcap=5.0 if kind == "soft cap" else None)
    with Largest() as seen:
        if kind == "no grad":
            with torch.no_grad():
                nll_sum(rows, head, targets)
        else:
            loss = log_probs(rows, head, targets).sum() if "log_probs" in kind else nll_sum(rows, head, targets)
            loss.backward()
    assert seen.operations > n // 16
    assert 0 < seen.bytes <= vocab * 4 * 16, "a chunk of 16 rows is the largest"
    with Largest() as plain:
        plain_sum(rows, head, targets)
    assert plain.bytes == n * vocab * 4


def test_without_gradients_nothing_is_multiplied_back(monkeypatch):
    rows, weight, _, targets = made()
    monkeypatch.setattr(cross_entropy, "_differentiate", lambda *_: pytest.fail("a gradient was made"))
    with torch.no_grad():
        nll_sum(rows.requires_grad_(), Head(weight.requires_grad_()), targets)
