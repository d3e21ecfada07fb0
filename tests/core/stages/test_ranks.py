"""Sums over processes, of two real ones that talk over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llf_core.stages.base.ranks import sum_over_ranks

RANK = """
import json, sys
import torch
from llf_core.stages.base.ranks import sum_over_ranks

rank = int(sys.argv[1])
store = torch.distributed.FileStore(sys.argv[2], 2)
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
counts = torch.tensor([[1, 2], [3, 4]]) * (rank + 1)
exact = torch.tensor([0.1, rank], dtype=torch.float64)
learned = torch.tensor(float(rank), requires_grad=True)
summed = sum_over_ranks(2 * learned)
told = {
    "counts": sum_over_ranks(counts).tolist(),
    "exact": sum_over_ranks(exact).tolist(),
    "learned": [summed.item(), summed.requires_grad],
    "own": [counts[0, 0].item(), exact[1].item()],
}
print(json.dumps(told), flush=True)
torch.distributed.destroy_process_group()
"""


@pytest.mark.usefixtures("warm_python")
def test_two_processes_get_the_same_sums_and_keep_their_own(tmp_path):
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], cwd=Path(__file__).parents[3], stdout=-1)
        for rank in range(2)
    ]
    try:
        first, second = (json.loads(one.communicate(timeout=250)[0].splitlines()[-1]) for one in ranks)
    finally:
        for one in ranks:
            one.kill()
    assert (first.pop("own"), second.pop("own")) == ([1, 0.0], [2, 1.0])
    assert first == second == {"counts": [[3, 6], [9, 12]], "exact": [0.2, 1.0], "learned": [2.0, False]}


def test_a_process_alone_has_its_own_sum():
    own = torch.tensor([1.0, 2.0], requires_grad=True)
    assert sum_over_ranks(own).tolist() == [1.0, 2.0]
    assert not sum_over_ranks(own).requires_grad
