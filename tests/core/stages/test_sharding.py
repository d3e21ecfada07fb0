"""FSDP2 in a group of one process: which weights are whole after a forward pass."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from llf_core.stages.base.ranks import shard
from tests.tiny import tiny_llama


@pytest.mark.parametrize("keeps", [False, True])
def test_a_layer_stays_whole_until_its_backward_pass_if_it_is_kept(tiny_tokenizer, keeps):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = tiny_llama(tiny_tokenizer)
        shard(model, torch.device("cpu"), keeps=keeps)
        ids = torch.tensor([[1, 2, 3]])
        loss = model(input_ids=ids, labels=ids).loss
        weights = [one.mlp.up_proj for one in model.model.layers]
        assert [isinstance(one.weight, DTensor) for one in weights] == [not keeps] * len(weights)
        loss.backward()
        assert all(isinstance(one.weight, DTensor) for one in weights)
    finally:
        dist.destroy_process_group()
