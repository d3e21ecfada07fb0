"""What a trained adapter computes: fixtures and helpers of the tests of methods."""

import pytest
import torch

from llf_core.acceleration.patching.install import restore
from llf_core.models import device
from llf_core.training import session
from tests.attempts import QUESTIONS


@pytest.fixture
def in_float32(monkeypatch):
    """A machine that is not faster in bfloat16, so that a run without `bf16` computes in float32."""
    monkeypatch.setattr(device, "bf16_speedup", lambda threads: 1.0)


@pytest.fixture
def logits_at_the_end(monkeypatch):
    """Logits of the trained model in memory, taken before its result is written."""
    kept = []
    original = session.save_output

    def save_output(model, tokenizer, *rest):
        forward = vars(model).pop("forward", None)  # accelerate's, which computes in the precision of the run
        restore(model)
        model.get_base_model().set_attn_implementation("sdpa")
        kept.append(logits(model, tokenizer))
        vars(model).update({} if forward is None else {"forward": forward})
        return original(model, tokenizer, *rest)

    monkeypatch.setattr(session, "save_output", save_output)
    return kept


@torch.no_grad()
def logits(model, tokenizer):
    """Logits `[4, tokens, V]` of four padded questions."""
    rows = [f"What is {number} plus 2?" for number in range(4)]
    batch = [tokenizer.apply_chat_template([{"role": "user", "content": row}], tokenize=False) for row in rows]
    training = model.training
    model.eval()
    found = model(**tokenizer(batch, return_tensors="pt", padding=True)).logits.clone()
    model.train(training)
    return found


@torch.no_grad()
def answer_loss(model, tokenizer):
    """Mean loss over the tokens of some of the conversations that were trained on."""
    turns = [
        [{"role": "user", "content": QUESTIONS[n]}, {"role": "assistant", "content": f"It is number {n}."}]
        for n in range(4)
    ]
    losses = []
    for one in turns:
        ids = torch.tensor([tokenizer.apply_chat_template(one)["input_ids"]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :].float()
        losses.append(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))
    return torch.stack(losses).mean()
