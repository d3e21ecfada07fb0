"""Entropies in chunks against torch's own distribution in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical

from llf_core.acceleration.kernels import cross_entropy
from llf_core.acceleration.kernels.cross_entropy import entropies
from llf_core.acceleration.patching.causal_head import LOGITS, Head


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, None), (2.0, 5.0)])
def test_entropy_is_that_of_the_distribution(scale, softcap, monkeypatch):
    monkeypatch.setitem(cross_entropy.CHUNK, "cpu", 3 * 11 * 8)  # three rows a chunk
    generator = torch.Generator().manual_seed(1)
    rows, weight = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((7, 4), (11, 4)))
    logits = rows @ weight.t() * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    found = entropies(rows, Head(weight, None, scale, softcap))
    assert found.tolist() == pytest.approx(Categorical(logits=logits).entropy().tolist(), rel=1e-12)


def test_of_logits_themselves():
    assert entropies(torch.zeros(2, 8), LOGITS).tolist() == pytest.approx([math.log(8)] * 2)
    assert entropies(torch.zeros(0, 8), LOGITS).tolist() == []
