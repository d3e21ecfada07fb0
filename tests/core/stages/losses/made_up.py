"""Log-probabilities of answers that nobody gave."""

import torch

from llf_core.stages.preference_losses import Pairs

FIELDS = ("chosen", "rejected", "reference_chosen", "reference_rejected")


def made_pairs(count=7, seed=0, dtype=torch.float64, far=2.0):
    """Pairs of answers of 1 to 12 tokens; the policy is some `far` away from the reference."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(count, generator=generator, dtype=torch.float64)

    chosen_tokens, rejected_tokens = torch.randint(1, 13, (2, count), generator=generator)
    references = [-(0.3 + draw().abs()) * tokens for tokens in (chosen_tokens, rejected_tokens)]
    policies = [(reference + far * draw()).clamp(max=-0.05) for reference in references]
    return Pairs(
        *(one.to(dtype) for one in (*policies, *references)),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )


def rows(pairs):
    """The pairs one by one, as plain numbers."""
    columns = [getattr(pairs, name).tolist() for name in (*FIELDS, "chosen_tokens", "rejected_tokens")]
    return list(zip(*columns, strict=True))


class Answers:
    """Stands where TRL calls a model, and gives it the log-probabilities that it should have found.

    Args:
        log_probs: `[B, seq - 1]` of each sequence's tokens after the first, 0 where a token is not of the answer. What
            is called with a second kind of sequences gets the second one, and so on, over and over.
    """

    def __init__(self, *log_probs):
        self.log_probs = log_probs
        self.calls = 0

    def __call__(self, labels, **inputs):
        from trl.trainer.utils import FusedCausalLMOutput

        given = self.log_probs[self.calls % len(self.log_probs)]
        self.calls += 1
        assert given.shape == labels[:, 1:].shape
        unused = torch.zeros_like(given)
        return FusedCausalLMOutput(
            log_probs=given * (labels[:, 1:] != -100), entropy=unused, mean_logits=unused, is_top1=unused.bool()
        )


def sequences(tokens, prompt=3):
    """`input_ids`, `attention_mask` and `completion_mask` of a prompt and answers of so many tokens."""
    width = prompt + int(tokens.max())
    places = torch.arange(width).expand(len(tokens), width)
    attended = places < prompt + tokens[:, None]
    completed = attended & (places >= prompt)
    return {
        "input_ids": torch.ones_like(places),
        "attention_mask": attended.long(),
        "completion_mask": completed.long(),
    }


def spread(sums, tokens, width):
    """`[B, width - 1]`: sums shared out unevenly over the last tokens of sequences of which 2 are a prompt's."""
    places = torch.arange(width - 1).expand(len(tokens), width - 1) - 2
    shares = torch.where((places >= 0) & (places < tokens[:, None]), (places + 1).to(sums.dtype), 0.0)
    return sums[:, None] * shares / shares.sum(1, keepdim=True)
