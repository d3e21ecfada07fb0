"""Shifted sparse attention: equal to a dense mask, causal, on while training only."""

import pytest
import torch

from llf_core.acceleration.kernels.attention import Layout, document_attention, shifted_attention
from llf_core.acceleration.patching.attention_backend import per_document_attention
from llf_core.config import RunConfig, validate
from llf_core.modifiers.shift_attn import ShiftAttn
from llf_core.runs import RunReader
from llf_core.stages.sft import SFT
from tests.core.acceleration.architectures import tiny

LENGTHS = (1, 7, 13, 4, 25)
GROUP = 8


def seen(heads, group=GROUP):
    """`[heads, tokens, tokens]`: true where a token attends to another, from the definition."""
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    position = torch.cat([torch.arange(length) for length in LENGTHS])
    causal = torch.ones(len(position), len(position), dtype=torch.bool).tril()
    same = document[:, None] == document[None]
    masks = []
    for head in range(heads):
        shift = 0 if head < heads // 2 else group // 2
        groups = (position + group - shift) // group if shift else position // group
        masks.append(causal & same & (groups[:, None] == groups[None]))
    return torch.stack(masks)


@pytest.mark.parametrize("kernel", ["batched", "one by one"])
@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (4, 2), (6, 3), (9, 3), (3, 1), (1, 1)])
def test_it_equals_a_dense_mask(heads, keys, kernel):
    generator = torch.Generator().manual_seed(0)
    tokens, bounds = sum(LENGTHS), (0, *torch.tensor(LENGTHS).cumsum(0).tolist())
    q, k, v = (
        torch.randn(tokens, count, 8, dtype=torch.float64, generator=generator, requires_grad=True)
        for count in (heads, keys, keys)
    )
    layout = Layout(bounds, 8**-0.5, group=GROUP)
    if kernel == "batched":
        ours = document_attention(q, k, v, layout)
    else:
        ours = shifted_attention(lambda _, plain, q, k, v: per_document_attention(q, k, v, plain), layout, q, k, v)
    wide = [x.repeat_interleave(heads // keys, 1).transpose(0, 1) for x in (k, v)]
    scores = (q.transpose(0, 1) @ wide[0].transpose(1, 2) * 8**-0.5).masked_fill(~seen(heads), float("-inf"))
    plain = (scores.softmax(-1) @ wide[1]).transpose(0, 1)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    weights = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    for one, other in zip(*(torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def config(**keys):
    return RunConfig.load({"model_name_or_path": "m", "dataset": "llf_demo", "shift_attn": True} | keys)


def test_groups_are_used_while_training_alone_and_end_with_the_run():
    from llf_core.acceleration.patching.install import accelerate

    model = tiny("llama")
    modifier = ShiftAttn(config(cutoff_len=32))
    modifier.apply(model)
    assert accelerate(model).flattens
    ids = torch.arange(30)[None] % 90
    batch = {
        "input_ids": ids, "labels": ids, "position_ids": ids.new_tensor([list(range(30))]),
        "cu_seq_lens_q": torch.tensor([0, 30], dtype=torch.int32), "max_length_q": 30,
        "cu_seq_lens_k": torch.tensor([0, 30], dtype=torch.int32), "max_length_k": 30,
    }  # fmt: skip

    def loss(training):
        model.train(training)
        return SFT().loss_sum(model, batch).item()

    assert loss(training=True) != pytest.approx(loss(training=False), rel=1e-4)
    modifier.remove(model)
    assert loss(training=True) == pytest.approx(loss(training=False), rel=1e-6)


def test_a_run_with_groups_trains_and_one_group_is_plain_attention(trained):
    plain, _ = trained(max_steps=3)
    wide, _ = trained(max_steps=3, shift_attn=True, shift_attn_group=4096)
    small, code = trained(max_steps=3, shift_attn=True, shift_attn_group=8)
    assert code == 0
    first, second, third = (RunReader(one).metrics().values("loss") for one in (plain, wide, small))
    torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-2, atol=0)
    assert abs(third[0] - first[0]) > 1e-4


def test_a_model_that_needs_padding_is_refused():
    from llf_core.models.errors import ModelError
    from llf_core.modifiers.modifier import check_flattened

    with pytest.raises(ModelError, match="shift_attn needs batches without padding"):
        check_flattened(config(), flattens=False, why="It is a vision model.")
    check_flattened(config(), flattens=True, why="")
    check_flattened(config(shift_attn=False), flattens=False, why="It is a vision model.")


def test_rules():
    def told(**keys):
        report = validate({"model_name_or_path": "m", "dataset": "llf_demo", "shift_attn": True} | keys)
        return {(problem.severity, problem.key) for problem in report.violations}

    assert told() == set()
    assert ("error", "shift_attn") in told(stage="dpo", dataset="llf_demo_pairs")
    assert ("error", "shift_attn") in told(fast_path=False)
    assert ("error", "shift_attn") in told(flash_attn="sdpa")
    assert ("note", "shift_attn_group") in told(shift_attn=False, shift_attn_group=64)
