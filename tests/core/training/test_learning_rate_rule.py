"""The proposed learning rate, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from llf_core.training.learning_rate_rule import Branch, has_diverged, propose

UNTRAINED = (4.0,) * 9 + (3.0, 5.0, 4.0)  # of 12 steps the last 4 are measured: 4, 3, 5, 4


def branch(rate: float, *last: float) -> Branch:
    return Branch(rate, (4.0,) * 8 + last, UNTRAINED)


def test_a_branch_is_measured_against_the_same_batches():
    one = branch(1e-4, 3.0, 2.0, 4.0, 3.0)
    assert one.loss == 3.0
    assert one.change == -1.0
    assert not one.diverged


def test_the_smallest_rate_within_a_standard_error_is_proposed():
    best = branch(1e-3, 2.0, 1.0, 3.0, 2.0)
    # The differences 0.4, -0.2, 0.2, 0 have the mean 0.1 and the standard error sqrt(0.2 / 3) / 2 = 0.129.
    near = branch(3e-4, 2.4, 0.8, 3.2, 2.0)
    # The differences 0.5, 0.3, 0.5, 0.3 have the mean 0.4 and the standard error sqrt(0.04 / 3) / 2 = 0.058.
    worse = branch(1e-4, 2.5, 1.3, 3.5, 2.3)
    found = propose([best, worse, near])
    assert found.rate == 3e-4
    assert "3e-4 is the smallest learning rate whose loss after 12 steps" in found.reason
    assert "of 1e-3" in found.reason
    assert any("No rate diverged" in note for note in found.notes)
    assert propose([best, worse]).rate == 1e-3


def test_a_rate_is_a_third_of_what_diverges_at_most():
    good, better = branch(1e-4, 3.0, 2.0, 4.0, 3.0), branch(4e-4, 2.0, 1.0, 3.0, 2.0)
    gone = Branch(1e-3, (4.0, 4.0, 9.0, 12.0), UNTRAINED)
    assert gone.diverged
    assert math.isnan(gone.loss)
    found = propose([good, better, gone])
    assert found.rate == 1e-4
    assert found.reason.endswith("the loss diverges at 1e-3.")
    assert propose([good, better]).rate == 4e-4
    assert propose([gone]).rate is None


def test_what_does_not_fall_is_no_proposal():
    noise = branch(1e-4, 4.5, 2.4, 5.5, 3.5)  # differences 0.5, -0.6, 0.5, -0.5: within two standard errors of 0
    found = propose([noise, branch(1e-3, 5.0, 4.0, 6.0, 5.0)])
    assert found.rate is None
    assert found.reason == (
        "No learning rate lowers the loss measurably within 12 steps. Try more steps, or higher learning rates."
    )


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ((1.0, math.nan), True),
        ((math.inf,), True),
        ((9.0, 9.0), False),  # fewer than three steps say nothing
        ((1.0, 2.0, 2.0, 2.0), True),
        ((1.0, 2.0, 2.0, 1.9), False),
        ((1.0, 1.0, 1.0, 1.0, 30.0), True),
        ((1.0, 1.0, 1.0, 1.0, 1.0, 9.9, 9.9, 9.9), False),  # the batches themselves are as difficult
    ],
)
def test_divergence_is_twice_the_loss_of_the_untrained_model(losses, diverged):
    assert has_diverged(losses, (1.0,) * 5 + (9.0,) * 3) is diverged
