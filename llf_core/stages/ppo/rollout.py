"""Completions of one phase, with their numbers for the optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from llf_core.data.collate import BATCH_SPLIT_PER_TOKEN
from llf_core.models.memory import is_out_of_memory
from llf_core.stages.base.oom_retry import empty_caches
from llf_core.stages.ppo.batch import answer_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Rollout:
    """Completions, and one number for each of their tokens, completion after completion.

    Attributes:
        prompts, answers: token ids; no answer is empty.
        old_log_probs: `[tokens]`, float32, of the policy that sampled them.
        old_values: `[tokens]`, float32: value of the state before each token, at sampling.
        advantages: `[tokens]`, float32, whitened.
        returns: `[tokens]`, float32: targets of the value function.
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.answers)

    @classmethod
    def joined(cls, parts: Sequence[Rollout]) -> Rollout:
        """Concatenate the completions of all parts."""
        columns = ([getattr(one, name) for one in parts] for name in BATCH_SPLIT_PER_TOKEN)
        return cls(
            [row for one in parts for row in one.prompts],
            [row for one in parts for row in one.answers],
            *map(torch.cat, columns),
        )

    def batch(
        self,
        indices: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device | str,
        *,
        flatten: bool,
    ) -> dict[str, Any]:
        """Collate some completions for a micro-batch: `answer_batch` with the tensors `PER_TOKEN`, `[tokens]` each."""
        batch = answer_batch(
            [self.prompts[one] for one in indices],
            [self.answers[one] for one in indices],
            tokenizer,
            device,
            flatten=flatten,
        )
        lengths = torch.tensor([len(answer) for answer in self.answers])
        positions = torch.cat([torch.arange(end - length, end) for length, end in self._spans(lengths, indices)])
        return batch | {name: getattr(self, name)[positions].to(device) for name in BATCH_SPLIT_PER_TOKEN}

    @staticmethod
    def _spans(lengths: Tensor, indices: Sequence[int]) -> list[tuple[int, int]]:
        ends = lengths.cumsum(0)
        return [(int(lengths[one]), int(ends[one])) for one in indices]

    def tensors(self) -> dict[str, Tensor]:
        """The rollout as named tensors, `[tokens]` or `[answers]` each, which a checkpoint stores as safetensors."""
        ids = {"prompts": self.prompts, "answers": self.answers}
        flat = {name: torch.tensor([token for row in rows for token in row]) for name, rows in ids.items()}
        lengths = {f"{name}.lengths": torch.tensor([len(row) for row in rows]) for name, rows in ids.items()}
        return flat | lengths | {name: getattr(self, name).contiguous() for name in BATCH_SPLIT_PER_TOKEN}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Rollout:
        """Restore a rollout from `tensors`, `[tokens]` or `[answers]` each; ValueError if they do not fit together."""
        prompts, answers = (
            [part.tolist() for part in torch.split(tensors[name], tensors[f"{name}.lengths"].tolist())]
            for name in ("prompts", "answers")
        )
        numbers = [tensors[name] for name in BATCH_SPLIT_PER_TOKEN]
        tokens = sum(map(len, answers))
        if len(prompts) != len(answers) or not all((*prompts, *answers)) or any(len(one) != tokens for one in numbers):
            raise ValueError(
                f"its {len(prompts)} prompts and {len(answers)} completions of {tokens} tokens have "
                f"{', '.join(str(len(one)) for one in numbers)} numbers, and expected is one for each token"
            )
        return cls(prompts, answers, *numbers)


def run_in_chunks(
    items: Sequence[Item], size: int, compute: Callable[[Sequence[Item]], Result]
) -> tuple[list[Result], int]:
    """Process items in chunks, halved after out of memory; `compute` leaves nothing behind on failure.

    Returns:
        The result of each chunk, and the final size, to begin with next time.
    """
    results, start = [], 0
    while start < len(items):
        try:
            results.append(compute(items[start : start + size]))
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        else:
            start += size
            continue
        empty_caches()  # outside the handler, where the error no longer keeps the failed graph in memory
        size = (size + 1) // 2
    return results, size
