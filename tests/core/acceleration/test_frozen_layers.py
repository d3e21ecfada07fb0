"""Frozen lower layers are computed once a document, and nothing else changes."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llf_core.acceleration.frozen_layer_store import RECORD, TrunkStore, key_of
from llf_core.acceleration.frozen_layers import Trunk, documents, frozen_depth


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).model.requires_grad_(requires_grad=False).train()
    model.layers[2].requires_grad_(requires_grad=True)
    return model


def store(folder, tokens=100, dtype=torch.float32, width=16):
    return TrunkStore(folder, tokens=tokens, width=width, dtype=dtype)


def padded(*rows):
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False}


def test_the_frozen_depth_ends_below_what_is_trained_or_random(decoder):
    assert frozen_depth(decoder) == 2
    decoder.layers[1].mlp.up_proj.weight.requires_grad_(requires_grad=True)
    assert frozen_depth(decoder) == 1
    decoder.layers[0].add_module("dropout", nn.Dropout(0.1))
    assert frozen_depth(decoder) == 0


@pytest.mark.parametrize("change", ["embedding", "attention_dropout"])
def test_nothing_is_kept_above_an_embedding_that_changes(decoder, change):
    if change == "embedding":
        decoder.embed_tokens.weight.requires_grad_(requires_grad=True)
    else:
        decoder.config.attention_dropout = 0.1
    assert frozen_depth(decoder) == 0


def test_a_trained_norm_at_the_end_is_above(decoder):
    decoder.norm.weight.requires_grad_(requires_grad=True)
    assert frozen_depth(decoder) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_batch_gives_the_same_bits_without_the_lower_layers(decoder, tmp_path, dtype):
    decoder.to(dtype)
    batch = padded([3, 4, 5, 6, 7], [8, 9])
    whole = batch["attention_mask"].bool()

    def run():
        decoder.zero_grad()
        hidden = decoder(**batch)[0]
        hidden[whole].float().square().sum().backward()
        return hidden[whole].detach(), [p.grad.clone() for p in decoder.layers[2].parameters()]

    plain = run()
    trunk = Trunk(decoder, 2, store(tmp_path, dtype=dtype))
    calls = []
    decoder.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    recorded, replayed = run(), run()
    assert (trunk.kept, trunk.skipped, len(calls)) == (2, 7, 1)
    for hidden, gradients in (recorded, replayed):
        assert torch.equal(hidden, plain[0])
        assert all(map(torch.equal, gradients, plain[1]))
    trunk.remove()
    assert torch.equal(run()[0], plain[0])
    assert len(calls) == 2


def test_documents_are_found_in_other_company(decoder, tmp_path):
    trunk = Trunk(decoder, 2, store(tmp_path))
    alone = decoder(**padded([8, 9, 1]))[0][0]
    decoder(**padded([3, 4, 5, 6, 7]))
    together = decoder(**padded([3, 4, 5, 6, 7], [8, 9, 1]))[0]
    assert (trunk.kept, trunk.skipped) == (2, 8)
    torch.testing.assert_close(together[1, :3], alone)


def test_a_batch_with_one_unknown_document_is_computed_and_its_known_ones_stay(decoder, tmp_path):
    kept = store(tmp_path)
    Trunk(decoder, 2, kept)
    decoder(**padded([8, 9, 1]))
    key = key_of(torch.tensor([8, 9, 1]))
    before = kept.get(key).clone()
    decoder(**padded([8, 9, 1], [2, 3]))
    assert len(kept) == 2
    assert torch.equal(kept.get(key), before)


def test_evaluation_keeps_nothing(decoder, tmp_path):
    trunk = Trunk(decoder, 2, store(tmp_path))
    decoder.eval()(**padded([3, 4]))
    assert trunk.kept == 0


def test_where_documents_lie():
    ids = torch.zeros(1, 7, dtype=torch.int64)
    placeholder = torch.empty(1, 1, 0, 0)
    flat = {"cu_seq_lens_q": torch.tensor([0, 4, 7]), "attention_mask": placeholder}
    assert documents(ids, flat) == [(0, slice(0, 4)), (0, slice(4, 7))]
    two = torch.zeros(2, 3, dtype=torch.int64)
    assert documents(two, {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}) == [
        (0, slice(0, 2)),
        (1, slice(0, 3)),
    ]
    assert documents(two, {"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}) == []
    assert documents(two, {}) == []


def filled(folder):
    kept = store(folder, tokens=10, width=2)
    kept.put(b"a" * 16, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    kept.put(b"b" * 16, torch.tensor([[5.0, 6.0]]))
    return kept


def test_a_file_that_is_opened_again_has_the_same_states(tmp_path):
    filled(tmp_path)
    again = store(tmp_path, tokens=10, width=2)
    assert len(again) == 2
    assert again.get(b"a" * 16).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert again.put(b"c" * 16, torch.tensor([[7.0, 8.0]]))
    assert store(tmp_path, tokens=10, width=2).get(b"c" * 16).tolist() == [[7.0, 8.0]]


@pytest.mark.parametrize("cut", [1, RECORD.size - 1])
def test_a_cut_line_of_the_index_counts_for_nothing(tmp_path, cut):
    filled(tmp_path)
    index = tmp_path / "index"
    index.write_bytes(index.read_bytes()[:-cut])
    again = store(tmp_path, tokens=10, width=2)
    assert b"a" * 16 in again
    assert b"b" * 16 not in again
    again.put(b"c" * 16, torch.tensor([[7.0, 8.0]]))
    assert len(store(tmp_path, tokens=10, width=2)) == 2


def test_states_that_were_damaged_are_left_out(tmp_path):
    filled(tmp_path)
    states = tmp_path / "states"
    content = bytearray(states.read_bytes())
    content[17] ^= 1  # in the second document
    states.write_bytes(content)
    again = store(tmp_path, tokens=10, width=2)
    assert b"a" * 16 in again
    assert b"b" * 16 not in again


def test_what_has_no_room_is_not_kept(tmp_path):
    kept = store(tmp_path, tokens=2, width=2)
    assert kept.put(b"a" * 16, torch.ones(2, 2))
    assert not kept.put(b"b" * 16, torch.ones(1, 2))
    assert b"b" * 16 not in kept
