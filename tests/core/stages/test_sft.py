"""The SFT stage: which position learns which label, and its loss on a real model against PyTorch's own mean."""

import pytest
import torch
from torch.nn import functional

from llf_core.acceleration.patching.causal_head import install_head
from llf_core.stages.sft import SFT
from llf_core.stages.token_accuracy import shifted_targets
from tests.tiny import tiny_llama


def test_targets_move_one_to_the_left_and_the_last_position_predicts_nothing():
    labels = torch.tensor([[-100, 5, 6], [7, -100, 8]])
    assert shifted_targets(labels).tolist() == [[5, 6, -100], [-100, 8, -100]]


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_equal_a_plain_forward(tiny_tokenizer, installed, smoothing):
    ids = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :4] = labels[1, 6:] = -100
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    plain, model = tiny_llama(tiny_tokenizer), tiny_llama(tiny_tokenizer)
    logits = plain(input_ids=ids, attention_mask=mask).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", label_smoothing=smoothing
    )
    expected.backward()
    if installed:
        assert install_head(model) is None
    loss = SFT().loss_sum(model, {"input_ids": ids, "attention_mask": mask, "labels": labels}, smoothing)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5 * float(other.grad.abs().max()), msg=name)
