"""Prompts and optimizer steps of each phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.data.media_files import MediaLimits

SAMPLING, ORDER, EVALUATION = 0, 1, 2
"""Uses of random numbers, each with its own generator."""


@dataclass(frozen=True)
class Plan:
    """Division of a run's prompts into phases and optimizer steps.

    In a phase all processes together sample completions for `answers` prompts and then make `steps` optimizer steps:
    `passes` epochs over all completions, each in `parts` steps.

    Attributes:
        step: prompts of an optimizer step of all processes.
        parts: `ppo_buffer_size`.
        passes: `ppo_epochs`.
    """

    step: int
    parts: int
    passes: int
    seed: int

    @property
    def answers(self) -> int:
        """Number of completions of a phase."""
        return self.step * self.parts

    @property
    def steps(self) -> int:
        """Number of optimizer steps of a phase."""
        return self.parts * self.passes

    def phases(self, prompts: int) -> int:
        """Number of phases of an epoch, in which every prompt gets a completion, rounded up."""
        return math.ceil(prompts / self.answers)

    def loader_length(self, prompts: int) -> int:
        """Length of the placeholder data set that makes the Trainer count an epoch as one completion for every prompt.

        The last phase of an epoch is filled up with prompts of the next epoch.
        """
        return self.phases(prompts) * self.steps * self.step

    def prompt_indices(self, prompts: int, prompts_used: int) -> list[int]:
        """Indices of the prompts of the next phase; each epoch has its own order, by the counts alone."""
        found: list[int] = []
        orders: dict[int, Sequence[int]] = {}
        for number in range(prompts_used, prompts_used + self.answers):
            epoch = number // prompts
            if epoch not in orders:
                orders[epoch] = np.random.default_rng((self.seed, ORDER, epoch)).permutation(prompts).tolist()
            found.append(int(orders[epoch][number % prompts]))
        return found

    def minibatch(self, answers: int, phase: int, phase_steps_done: int) -> list[int]:
        """Indices of the completions of the next step of a phase, shuffled by a seed from run, phase and epoch.

        Empty if a phase has fewer completions than steps, and none is left.
        """
        epoch, number = divmod(phase_steps_done, self.parts)
        order = np.random.default_rng((self.seed, ORDER, phase, epoch)).permutation(answers)
        return [int(one) for one in np.array_split(order, self.parts)[number]]

    def sampling_seed(self, phase: int, use: int = SAMPLING) -> int:
        """Seed of the sampling in a phase: completion `i` of all processes is sampled with this seed plus `i`."""
        return int(np.random.default_rng((self.seed, use, phase)).integers(2**40))


class PlaceholderDataset:
    """Data set of empty examples, which gives the Trainer's loader the length of the run."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return {"input_ids": []}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(self._length))


@dataclass(frozen=True)
class PromptCollator:
    """Makes batches of prompts for an evaluation, and of the empty examples of `PlaceholderDataset`."""

    tokenizer: PreTrainedTokenizerBase
    processor: ProcessorMixin | None = None
    flatten: bool = False
    fill: int = 1
    limits: MediaLimits | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A model's inputs, see `Collator`, with `numbers` (`[batch]`, int64) if the examples have them.

        Placeholders give `input_ids` `[batch, 0]`.
        """
        import torch

        from llf_core.data.collate import Collator

        if not any(len(one["input_ids"]) for one in features):
            return {"input_ids": torch.zeros(len(features), 0, dtype=torch.int64)}
        ids = [{"input_ids": one["input_ids"], "labels": one["input_ids"]} for one in features]
        batch = Collator(self.tokenizer, flatten=self.flatten)(ids)
        del batch["labels"]
        numbers = [one.get("number") for one in features]
        return batch | ({} if None in numbers else {"numbers": torch.tensor(numbers)})


def prompts_of(batch: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of each document of a batch, flattened (`[1, tokens]`) or padded (`[batch, seq]`)."""
    ids = batch["input_ids"]
    if "cu_seq_lens_q" in batch:
        return [part.tolist() for part in ids[0].split(batch["cu_seq_lens_q"].diff().tolist())]
    return [row[mask.bool()].tolist() for row, mask in zip(ids, batch["attention_mask"], strict=True)]
