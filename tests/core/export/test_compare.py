"""Checks of an export, without a model."""

import pytest
import torch

from llf_core.export.compare import compare_all
from llf_core.export.plain_result import PlainResult
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
