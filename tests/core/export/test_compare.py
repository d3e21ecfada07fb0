"""Checks of an export, without a model."""

import math

import pytest
import torch

from llf_core.export.compare import compare_all, kl_check, logits_check
from llf_core.export.receipt import PlainResult
from llf_core.export.reference import Reference


@pytest.mark.parametrize("lossy", [False, True])
def test_logits_of_other_positions_fail_an_approximation_too(lossy):
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    reference = Reference([[1, 2]], [[3]], [logits], [[1]], [None], None, [2])
    same, shorter = (
        PlainResult("another program", "", [], None, [None], [[1]], [2], [[3]], [one]) for one in (logits, logits[:2])
    )
    by_name = [
        {one.name: one for one in compare_all(reference, found, compute_dtype="float32", dtype="float32", lossy=lossy)}
        for found in (same, shorter)
    ]
    assert [found["KL divergence"].passed for found in by_name] == [True, False]
    assert (by_name[0]["KL divergence"].measured, by_name[1]["KL divergence"].measured) == (0.0, "other shape")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("live", [False, True])
def test_logits_that_are_not_finite_differ_infinitely(value, live):
    pair = [torch.tensor([[0.0, 1.0]])], [torch.tensor([[0.0, value]])]
    expected, found = reversed(pair) if live else pair
    check = logits_check(expected, found, 0.1, "another program")
    assert not check.passed
    assert check.measured == math.inf
    assert not kl_check(expected, found, 0.1, "another program").passed
