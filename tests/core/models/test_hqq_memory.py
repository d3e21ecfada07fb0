"""The memory of HQQ's solver, counted while it runs."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llf_core.estimate.loading import HQQ_TENSORS

quantize = pytest.importorskip("hqq.core.quantize")


class Live(TorchDispatchMode):
    """Counts the float32 tensors of some number of values that exist at the same time."""

    def __init__(self, values):
        super().__init__()
        self.values, self.made, self.most = values, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32 and result.numel() == self.values:
            self.made.append(weakref.ref(result))
        alive = {one.data_ptr() for made in self.made if (one := made()) is not None}
        self.most = max(self.most, len(alive))
        return result


def test_the_solver_of_hqq_holds_as_many_tensors_as_the_forecast_counts():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    with Live(weight.numel()) as live:
        quantize.Quantizer.quantize(weight, nbits=4, group_size=64, axis=0, device="cpu")
    assert live.most == HQQ_TENSORS
