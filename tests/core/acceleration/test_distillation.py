"""Distillation against divergences of all logits at once, in float64, and against TRL's."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from llf_core.acceleration.kernels.distillation import divergence_sum
from llf_core.acceleration.patching.causal_head import LOGITS, Head
from tests.core.acceleration.test_token_loss import SHAPES, Largest, made, small_chunks

BETAS = [0.0, 0.3, 0.5, 1.0]
LEARNED = torch.tensor([5, 0, 1, 3, 6])


def plain_sum(hidden, head, teacher_hidden, teacher_head, learned, temperature=1.0, beta=0.5):
    """The second implementation: torch's own divergences of its own distributions."""
    student, teacher = (
        Categorical(logits=one.logits(states).flatten(0, -2)[learned] / temperature)
        for states, one in ((hidden, head), (teacher_hidden.detach(), teacher_head))
    )
    if beta == 0.0:
        costs = kl_divergence(teacher, student)
    elif beta == 1.0:
        costs = kl_divergence(student, teacher)
    else:
        mixture = Categorical(probs=beta * teacher.probs + (1.0 - beta) * student.probs)
        costs = beta * kl_divergence(teacher, mixture) + (1.0 - beta) * kl_divergence(student, mixture)
    return temperature**2 * costs.sum()


def taught(n=7, width=4, vocab=11, dtype=torch.float64, seed=50, **shape):
    """Hidden states and head of a teacher that is narrower than the student of `made`."""
    rows, weight, bias, _ = made(n, width, vocab, dtype, seed)
    return rows, Head(weight, bias, **shape)


def certain(*probabilities):
    """Logits of given probabilities, `[1, V]`."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


FIRST = torch.tensor([0])


def test_by_hand():
    # Teacher (3/4, 1/4), student (1/4, 3/4): both mix to (1/2, 1/2) at β = ½, and KL is ½ ln 3 either way.
    teacher, student = certain(0.75, 0.25), certain(0.25, 0.75)
    to_middle = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for beta, expected in ((0.0, 0.5 * math.log(3)), (0.5, to_middle), (1.0, 0.5 * math.log(3))):
        found = divergence_sum(student, LOGITS, teacher, LOGITS, FIRST, beta=beta)
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_which_way_round():
    # Student (1/2, 1/2), teacher (1 - e, e): KL(teacher ‖ student) ends at ln 2, the other grows with -ln e.
    teacher, student = certain(1 - 1e-6, 1e-6), certain(0.5, 0.5)
    forward, reverse = (
        divergence_sum(student, LOGITS, teacher, LOGITS, FIRST, beta=beta).item() for beta in (0.0, 1.0)
    )
    assert forward == pytest.approx(math.log(2) + 1e-6 * math.log(1e-6) - 1e-6, abs=1e-9)
    assert reverse == pytest.approx(-math.log(2) - 0.5 * math.log(1e-6), abs=1e-5)


def test_temperature_squares():
    # Logits of T · (0, ln 3) over T are those of (0, ln 3) at T = 1, times T².
    teacher, student = certain(0.25, 0.75), certain(0.5, 0.5)
    once = divergence_sum(student, LOGITS, teacher, LOGITS, FIRST).item()
    hot = divergence_sum(3.0 * student, LOGITS, 3.0 * teacher, LOGITS, FIRST, temperature=3.0).item()
    assert hot == pytest.approx(9.0 * once, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("trained", ["rows", "rows, weight, bias", "weight"])
@pytest.mark.parametrize("beta", BETAS)
def test_sum_and_gradients_in_float64(monkeypatch, shape, trained, beta):
    small_chunks(monkeypatch, 3 * 11 * 8, 2 * 11 * 8)  # chunks of three rows, blocks of two
    rows, weight, bias, _ = made()
    states, teacher = taught(**shape)
    ours = {"rows": rows.clone(), "weight": weight.clone(), "bias": bias.clone()}
    theirs = {name: tensor.clone() for name, tensor in ours.items()}
    for name in trained.split(", "):
        ours[name].requires_grad_()
        theirs[name].requires_grad_()
    loss, expected = (
        function(given["rows"], Head(given["weight"], given["bias"], **shape), states, teacher, LEARNED, 1.7, beta)
        for function, given in ((divergence_sum, ours), (plain_sum, theirs))
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_gradcheck(monkeypatch, beta):
    small_chunks(monkeypatch, 2 * 11 * 8, 11 * 8)
    rows, weight, bias, _ = made(3)
    states, teacher = taught(3)

    def function(rows, bias):  # with a weight that trains it would be walked backward once, and gradcheck does twice
        head = Head(weight, bias, scale=1.3, softcap=3.0)
        return divergence_sum(rows, head, states, teacher, torch.tensor([2, 0]), 2.0, beta)

    assert torch.autograd.gradcheck(function, [rows.requires_grad_(), bias.requires_grad_()])


@pytest.mark.parametrize("beta", BETAS)
def test_gradcheck_of_logits(beta):
    logits, teacher = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(2))
    learned = torch.tensor([4, 1, 2])

    def function(student):
        return divergence_sum(student, LOGITS, teacher, LOGITS, learned, 0.7, beta)

    assert torch.autograd.gradcheck(function, [logits.requires_grad_()])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_is_trls_times_the_temperature_squared(beta, temperature):
    from trl.experimental.gkd import GKDTrainer

    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(2, 6, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([[-100, 1, 2, 3, -100, 4], [-100, -100, 5, 6, 7, -100]])
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    learned = (labels.flatten() != -100).nonzero()[:, 0]
    loss = divergence_sum(ours, LOGITS, teacher, LOGITS, learned, temperature, beta)
    expected = GKDTrainer.generalized_jsd_loss(theirs, teacher, labels, beta, temperature, reduction="sum")
    torch.testing.assert_close(loss, temperature**2 * expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, temperature**2 * theirs.grad, rtol=1e-10, atol=1e-14)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 9),
    vocab=st.integers(2, 13),
    chunk=st.integers(1, 2000),
    block=st.integers(1, 1000),
    seed=st.integers(0, 99),
    trains=st.booleans(),
    beta=st.sampled_from(BETAS),
    data=st.data(),
)
def test_any_rows_and_any_border(n, vocab, chunk, block, seed, trains, beta, data):
    rows, weight, _, _ = made(n, 4, vocab, seed=seed)
    states, teacher = taught(n, 3, vocab, seed=seed + 100)
    learned = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), unique=True)), dtype=torch.int64)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch, chunk, block)
        for function in (divergence_sum, plain_sum):
            h, w = rows.clone().requires_grad_(), weight.clone().requires_grad_(trains)
            loss = function(h, Head(w), states, teacher, learned, 1.5, beta)
            loss.backward()
            found.append((loss.detach(), h.grad, w.grad if trains else h.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(beta):
    rows, weight, bias, _ = made()
    student = rows.clone().requires_grad_()
    loss = divergence_sum(student, Head(weight, bias), rows, Head(weight, bias), LEARNED, beta=beta)
    loss.backward()
    assert abs(loss.item()) < 1e-14
    assert student.grad.abs().max() < 1e-14


def test_no_gradient_to_the_teacher():
    rows, weight, _, _ = made()
    states, teacher = taught()
    for tensor in (rows, states, teacher.weight, teacher.bias):
        tensor.requires_grad_()
    divergence_sum(rows, Head(weight), states, teacher, LEARNED).backward()
    assert rows.grad.abs().sum() > 0
    assert states.grad is teacher.weight.grad is teacher.bias.grad is None


def test_what_each_row_costs_is_noted():
    rows, weight, _, _ = made()
    states, teacher = taught()
    noted = []
    for graph in (True, False):
        with torch.set_grad_enabled(graph):
            loss = divergence_sum(
                rows.requires_grad_(graph),
                Head(weight),
                states,
                teacher,
                LEARNED,
                record_losses=lambda *of: noted.append(of),
            )
        places, costs = noted.pop()
        assert places.tolist() == LEARNED.tolist()
        assert not costs.requires_grad
        singles = [plain_sum(rows, Head(weight), states, teacher, LEARNED[i : i + 1]) for i in range(len(LEARNED))]
        torch.testing.assert_close(costs, torch.stack(singles).detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(loss, costs.sum(), rtol=1e-12, atol=0)


def test_no_rows_are_zero_with_a_graph():
    rows, weight, _, _ = made()
    states, teacher = taught()
    rows.requires_grad_()
    weight.requires_grad_()
    loss = divergence_sum(rows, Head(weight), states, teacher, LEARNED[:0])
    loss.backward()
    assert loss.item() == 0.0
    assert rows.grad.eq(0).all()
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trains", [False, True])
def test_half_precision_within_its_rounding(monkeypatch, dtype, trains, beta):
    n, vocab = 100, 500
    rows, weight, _, _ = made(n, 32, vocab, dtype, spread=0.5)
    states, teacher = taught(n, 16, vocab, dtype)
    small_chunks(monkeypatch, vocab * 2 * 30, vocab * 4 * 8)
    learned = torch.arange(0, n, 2)
    ours, plain = (
        (rows.to(kind).clone().requires_grad_(), weight.to(kind).clone().requires_grad_(trains))
        for kind in (dtype, torch.float64)
    )
    # What the student's logits are in this precision, and no finer, is what the loss is of.
    logits = [head.logits(h).double() for h, head in ((rows, Head(weight)), (states, teacher))]
    loss = divergence_sum(ours[0], Head(ours[1]), states, teacher, learned, 2.0, beta)
    torch.testing.assert_close(
        loss.double(), plain_sum(logits[0], LOGITS, logits[1], LOGITS, learned, 2.0, beta), rtol=1e-5, atol=0
    )
    exact = Head(teacher.weight.double(), teacher.bias.double())
    true = plain_sum(plain[0], Head(plain[1]), states.double(), exact, learned, 2.0, beta)
    for result in (loss, true):
        (result / 50).backward()
    unit = torch.finfo(dtype).eps
    for one, truth in zip(ours, plain, strict=True):
        if truth.grad is not None:
            assert one.grad.dtype == dtype
            assert (one.grad.double() - truth.grad).norm() <= 2.0 * unit * truth.grad.norm()


def test_autocast_and_a_teacher_of_its_own_precision():
    rows, weight, _, _ = made(50, 32, 400, torch.float32, spread=0.5)
    states, teacher = taught(50, 16, 400, torch.bfloat16)
    learned = torch.arange(50)
    exact = Head(teacher.weight.double(), teacher.bias.double())
    true = plain_sum(rows.double(), Head(weight.double()), states.double(), exact, learned)
    h, w = rows.requires_grad_(), weight.requires_grad_()
    plainly = divergence_sum(h, Head(w), states, teacher, learned)
    with torch.autocast("cpu", torch.bfloat16):
        loss = divergence_sum(h, Head(w), states, teacher, learned)
    loss.backward()
    assert loss.dtype == plainly.dtype == h.grad.dtype == w.grad.dtype == torch.float32
    torch.testing.assert_close(plainly.double(), true, rtol=2e-3, atol=0)
    torch.testing.assert_close(loss.double(), true, rtol=4e-3, atol=0)
    assert loss != plainly, "the products were not bfloat16"


@pytest.mark.parametrize("beta", BETAS)
def test_far_tails_stay_finite(beta):
    # Of what a teacher gives e^-1000, a student e^-2000, and neither anything, nothing becomes NaN.
    student = torch.tensor([[0.0, -2000.0, -3.0, -2000.0]], requires_grad=True)
    teacher = torch.tensor([[-1000.0, 0.0, -2000.0, -1500.0]])
    loss = divergence_sum(student, LOGITS, teacher, LOGITS, FIRST, beta=beta)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_nan_is_news():
    student = torch.tensor([[math.nan, 0.0]])
    assert math.isnan(divergence_sum(student, LOGITS, certain(0.5, 0.5).float(), LOGITS, FIRST).item())


@pytest.mark.parametrize("kind", ["frozen", "trained", "no grad", "soft cap"])
def test_no_tensor_as_large_as_the_logits_is_ever_made(monkeypatch, kind):
    n, vocab = 256, 2000
    small_chunks(monkeypatch, vocab * 4 * 16, vocab * 4 * 4)
    rows, weight, _, _ = made(n, 8, vocab, torch.float32)
    states, teacher = taught(n, 8, vocab, torch.float32)
    rows.requires_grad_(kind != "no grad")
    head = Head(weight.requires_grad_(kind == "trained"), softcap=5.0 if kind == "soft cap" else None)
    with Largest() as seen, torch.set_grad_enabled(kind != "no grad"):
        loss = divergence_sum(rows, head, states, teacher, torch.arange(n))
        if kind != "no grad":
            loss.backward()
    assert seen.operations > n // 16
    assert 0 < seen.bytes <= vocab * 4 * 16, "a chunk of 16 rows is the largest"


@pytest.mark.parametrize("longer", ["teacher", "student"])
def test_rows_that_only_one_head_has_do_not_count(longer):
    rows, weight, bias, _ = made()
    weight.requires_grad_()
    states, teacher = taught()
    whole = divergence_sum(rows, Head(weight, bias), states, teacher, LEARNED)
    (wanted,) = torch.autograd.grad(whole, weight)

    def padded(head):
        weight, bias = (torch.cat([one, torch.full_like(one[:3], 5.0)]) for one in (head.weight, head.bias))
        return replace(head, weight=weight, bias=bias)

    head = Head(weight, bias)
    if longer == "teacher":
        teacher = padded(teacher)
    else:
        head = padded(head)
    found = divergence_sum(rows, head, states, teacher, LEARNED)
    assert found.item() == whole.item()
    (gradient,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    "constants", [(0.0, 0.5), (-1.0, 0.5), (1.0, -0.1), (1.0, 1.1), (math.nan, 0.5), (math.inf, 0.5)]
)
def test_constants_out_of_range_are_refused(constants):
    with pytest.raises(ValueError, match="a temperature above 0 and a beta from 0 to 1"):
        divergence_sum(certain(0.5, 0.5), LOGITS, certain(0.5, 0.5), LOGITS, FIRST, *constants)
