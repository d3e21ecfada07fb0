"""Samples the completions of a phase and evaluates them with all models, in chunks that fit into memory."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from llf_core.config.declarations.stages.ppo import longest_answer
from llf_core.data.collate import BATCH_SPLIT_PER_TOKEN
from llf_core.generation.generate import continuations, without_accelerate
from llf_core.generation.sampling import Sampling
from llf_core.models.memory import is_out_of_memory
from llf_core.runs.writer import ProgressEvents
from llf_core.stages.base.loop import empty_caches
from llf_core.stages.completion_scores import check_finite
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.models import compute_policy
from llf_core.stages.reference_policy import autocast, eval_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import SampledCompletion, Score
    from llf_core.stages.ppo.models import PPOModels

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


@dataclass(frozen=True)
class TokenOutputs:
    """Outputs for each token of the completions, one completion after the other, float32 on the CPU, `[tokens]` each.

    `log_probs` and `entropies` (nats) are of the policy, `values` of the state before each token, `reference` the
    log-probabilities of the reference.
    """

    log_probs: Tensor
    values: Tensor
    reference: Tensor
    entropies: Tensor


class RolloutWorker:
    """Samples completions with the current policy, and evaluates them with reward model, reference and value function.

    `sizes`: completions that are sampled (`write`) and evaluated (`read`) at a time; halved after out of memory.
    """

    def __init__(self, context: TrainingContext, ppo_models: PPOModels, temperature: float) -> None:
        training = context.config.training
        self.context, self.ppo_models, self.temperature = context, ppo_models, temperature
        self.sizes = {
            "write": training.per_device_train_batch_size * training.gradient_accumulation_steps,
            "read": training.per_device_train_batch_size,
        }

    def generate(self, prompts: Sequence[Sequence[int]], seed: int, step: int) -> list[list[int]]:
        """Sample a completion for each prompt; `step` is for the progress event.

        Completion `i` is sampled with the seed plus `i`, so the chunk size does not change it. It has the token that
        ends it unless it was truncated.
        """
        progress = ProgressEvents(self.context.writer, "rollout", len(prompts), step=step)
        generation, model = self.context.config.generation, self.context.model

        def generate(part: Sequence[tuple[int, Sequence[int]]]) -> list[list[int]]:
            sampling = Sampling(
                do_sample=generation.do_sample,
                temperature=generation.temperature,
                top_k=generation.top_k,
                top_p=generation.top_p,
                repetition_penalty=generation.repetition_penalty,
                seed=seed + part[0][0],
            )
            with without_accelerate(model):
                return continuations(
                    model,
                    self.context.tokenizer,
                    [prompt for _, prompt in part],
                    sampling=sampling,
                    max_new_tokens=[longest_answer(self.context.config, len(prompt)) for _, prompt in part],
                    batch_size=len(part),
                    on_token=lambda done, tokens: progress(part[0][0] + done, tokens=tokens),
                )

        results, self.sizes["write"] = run_in_chunks(list(enumerate(prompts)), self.sizes["write"], generate)
        return [answer for part in results for answer in part]

    def score(self, completions: Sequence[SampledCompletion], step: int) -> list[Score]:
        """Compute the scores of completions, not yet normalized; `step` is for the progress event."""
        progress = ProgressEvents(self.context.writer, "score", len(completions), step=step)
        done = 0

        def score(part: Sequence[SampledCompletion]) -> Sequence[Score]:
            nonlocal done
            with eval_with_autocast(self.context, self.ppo_models.models.values()):
                found = check_finite(self.ppo_models.score(part), part, self.text)
            done += len(part)
            progress(done)
            return found

        results, self.sizes["read"] = run_in_chunks(completions, self.sizes["read"], score)
        return [one for part in results for one in part]

    def compute_outputs(self, completions: Sequence[SampledCompletion]) -> TokenOutputs:
        """Log-probabilities, values, reference log-probabilities and entropies of at least one completion."""
        context = self.context

        def compute_outputs(part: Sequence[SampledCompletion]) -> tuple[Tensor, ...]:
            batch = answer_batch(
                [one.prompt for one in part],
                [one.answer for one in part],
                context.tokenizer,
                context.model.get_input_embeddings().weight.device,
                flatten=context.flattens,
            )
            with torch.no_grad(), eval_with_autocast(context, self.ppo_models.models.values()):
                output = compute_policy(context.model, batch, self.temperature, self.ppo_models.value, entropy=True)
                reference = self.ppo_models.reference(batch)
            found = (output.log_probs, output.values, reference, output.entropies)
            return tuple(one.float().cpu() for one in found if one is not None)

        results, self.sizes["read"] = run_in_chunks(completions, self.sizes["read"], compute_outputs)
        return TokenOutputs(*(torch.cat(column) for column in zip(*results, strict=True)))

    def text(self, ids: Sequence[int]) -> str:
        """Decode token ids to text without special tokens and surrounding whitespace."""
        text: str = self.context.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()


@contextmanager
def eval_with_autocast(context: TrainingContext, models: Iterable[nn.Module]) -> Iterator[None]:
    """Context manager: models in evaluation mode, with the autocast of training.

    Without it, the ratio of log-probabilities would not start at 1.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(eval_mode(model))
        stack.enter_context(autocast(context))
        yield
