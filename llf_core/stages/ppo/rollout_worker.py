"""The policy as the author of answers: they are written, scored and read, as many at a time as the memory allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llf_core.config.declarations.stages.ppo import longest_answer
from llf_core.generation.generate import continuations
from llf_core.generation.own_forward import without_accelerate
from llf_core.generation.sampling import Sampling
from llf_core.runs.progress_events import ProgressEvents
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.eval_mode import reading
from llf_core.stages.ppo.policy_output import act
from llf_core.stages.ppo.rollout import in_parts
from llf_core.stages.ppo.scoring import checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.ppo.models import PPOModels
    from llf_core.stages.ppo.scoring import Score, Written


@dataclass(frozen=True)
class Read:
    """What the models make of written answers: one number for each token, answer after answer, float32 on the CPU.

    Attributes:
        log_probs: `[tokens]`, of the policy.
        values: `[tokens]`, what was expected before each token.
        reference: `[tokens]`, log-probabilities of the reference.
        entropies: `[tokens]`, of the policy.
    """

    log_probs: Tensor
    values: Tensor
    reference: Tensor
    entropies: Tensor


class RolloutWorker:
    """Writes answers with the policy as it is, and asks the other roles about them.

    Attributes:
        sizes: answers that are written, and read, at a time; they become smaller where memory runs out.
    """

    def __init__(self, work: TrainingContext, roles: PPOModels, temperature: float) -> None:
        """Takes the run, who plays which role, and the temperature of the sampling."""
        training = work.config.training
        self.work, self.roles, self.temperature = work, roles, temperature
        self.sizes = {
            "write": training.per_device_train_batch_size * training.gradient_accumulation_steps,
            "read": training.per_device_train_batch_size,
        }

    def write(self, prompts: Sequence[Sequence[int]], seed: int, step: int) -> list[list[int]]:
        """Answers to prompts, as token ids.

        Args:
            prompts: token ids, none empty.
            seed: the answer to prompt `i` is drawn with that plus `i`, however many are written at a time.
            step: the steps made so far.
        """
        under_way = ProgressEvents(self.work.writer, "rollout", len(prompts), step=step)
        drawing, model = self.work.config.generation, self.work.model

        def write(part: Sequence[tuple[int, Sequence[int]]]) -> list[list[int]]:
            sampling = Sampling(
                do_sample=drawing.do_sample,
                temperature=drawing.temperature,
                top_k=drawing.top_k,
                top_p=drawing.top_p,
                repetition_penalty=drawing.repetition_penalty,
                seed=seed + part[0][0],
            )
            with without_accelerate(model):
                return continuations(
                    model,
                    self.work.tokenizer,
                    [prompt for _, prompt in part],
                    sampling=sampling,
                    max_new_tokens=[longest_answer(self.work.config, len(prompt)) for _, prompt in part],
                    batch_size=len(part),
                    on_token=lambda done, tokens: under_way(part[0][0] + done, tokens=tokens),
                )

        made, self.sizes["write"] = in_parts(list(enumerate(prompts)), self.sizes["write"], write)
        return [answer for part in made for answer in part]

    def score(self, written: Sequence[Written], step: int) -> list[Score]:
        """Raw scores.

        Args:
            written: the answers.
            step: the steps made so far.

        Raises:
            StopTraining: one is no finite number, or they cannot be had.
        """
        under_way = ProgressEvents(self.work.writer, "score", len(written), step=step)
        done = 0

        def score(part: Sequence[Written]) -> Sequence[Score]:
            nonlocal done
            with reading(self.work, self.roles.models.values()):
                found = checked(self.roles.score(part), part, self.text)
            done += len(part)
            under_way(done)
            return found

        made, self.sizes["read"] = in_parts(written, self.sizes["read"], score)
        return [one for part in made for one in part]

    def read(self, written: Sequence[Written]) -> Read:
        """What policy, value function and reference make of answers."""
        work = self.work

        def read(part: Sequence[Written]) -> tuple[Tensor, ...]:
            batch = answer_batch(
                [one.prompt for one in part],
                [one.answer for one in part],
                work.tokenizer,
                work.model.get_input_embeddings().weight.device,
                flatten=work.flattens,
            )
            with torch.no_grad(), reading(work, self.roles.models.values()):
                acted = act(work.model, batch, self.temperature, self.roles.value, entropy=True)
                reference = self.roles.reference(batch)
            found = (acted.log_probs, acted.values, reference, acted.entropies)
            return tuple(one.float().cpu() for one in found if one is not None)

        made, self.sizes["read"] = in_parts(written, self.sizes["read"], read)
        return Read(*(torch.cat(column) for column in zip(*made, strict=True)))

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as a person reads them."""
        text: str = self.work.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()
