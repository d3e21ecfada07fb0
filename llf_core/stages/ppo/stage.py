"""PPO (arXiv 1707.06347) on the scores of a language model's own answers, as in arXiv 1909.08593 and 2203.02155."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.declarations.stages.ppo import PPOOptions
from llf_core.stages.base.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from torch import Tensor, nn

    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.base.stop_training import StopTraining
    from llf_core.stages.ppo.kl_controller import KLController
    from llf_core.stages.ppo.models import PPOModels
    from llf_core.stages.ppo.prompts import Plan, PromptCollator, Ticks
    from llf_core.stages.ppo.rollout import Rollout
    from llf_core.stages.ppo.rollout_worker import RolloutWorker
    from llf_core.stages.ppo.scoring import Score, Written
    from llf_core.stages.ppo.token_rewards import RunningMoments

TRIES = 16
"""Most phases in a row of which no answer can be judged."""


class PPO(Stage):
    """Has the policy answer prompts, scores the answers, and makes better ones likelier.

    A phase answers `per_device_train_batch_size · gradient_accumulation_steps · ppo_buffer_size` prompts and makes
    `ppo_buffer_size · ppo_epochs` optimizer steps of the answers. An epoch answers every prompt once, so
    `num_train_epochs` means what it does in LLaMA-Factory; `max_steps`, like `save_steps` and `logging_steps`, counts
    optimizer steps, as in every other stage (LLaMA-Factory counts phases).

    What lies between two steps is held here and goes into each checkpoint: the answers that are not used up yet, the
    moments of the scores, the KL coefficient, the value function.
    """

    label_names: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __init__(self, work: TrainingContext | None = None) -> None:
        """Loads a model for every role; without `work` there is the loss alone."""
        super().__init__(work)
        self.options = PPOOptions() if work is None else work.config.options(PPOOptions)
        if work is None:
            return
        from llf_core.stages.ppo.kl_controller import KLController
        from llf_core.stages.ppo.models import cast
        from llf_core.stages.ppo.prompts import Plan
        from llf_core.stages.ppo.rollout_worker import RolloutWorker
        from llf_core.stages.ppo.token_rewards import RunningMoments

        training, drawing = work.config.training, work.config.generation
        self.temperature = drawing.temperature if drawing.do_sample else 1.0
        self.plan: Plan = Plan(
            step=training.per_device_train_batch_size * training.gradient_accumulation_steps,
            parts=self.options.ppo_buffer_size,
            passes=self.options.ppo_epochs,
            processes=int(os.environ.get("WORLD_SIZE", "1")),
            seed=training.seed,
        )
        self.rank = int(os.environ.get("RANK", "0"))
        self.controller: KLController = KLController(self.options.ppo_kl_coef, self.options.ppo_target)
        self.moments: RunningMoments = RunningMoments()
        self.rollout: Rollout | None = None
        self.phase = -1
        self.made = self.served = self.asked = 0
        self.roles: PPOModels = cast(work, self.temperature)
        self.author: RolloutWorker = RolloutWorker(work, self.roles, self.temperature)
        self._questions: dict[int, str] | None = None
        self._told = False

    # -- the Trainer's loader --------------------------------------------------------------------------
    def examples(self, examples: Dataset, *, held_out: bool = False) -> Dataset | Ticks:
        """What makes the loader as long as the run; the prompts themselves are drawn here."""
        from llf_core.stages.ppo.prompts import Ticks

        if not held_out:
            return Ticks(self.plan.ticks(len(self._known)))
        places: Sequence[int] | None = getattr(self.roles.score, "eval_places", None)
        return examples if places is None else examples.select(places)

    @property
    def _known(self) -> Sequence[int]:
        """The places of the prompts that can be answered and scored."""
        places: Sequence[int] | None = getattr(self.roles.score, "places", None)
        return range(len(self.work.data.examples)) if places is None else places

    def auxiliary_models(self) -> Sequence[nn.Module]:
        """A value model of its own."""
        value: Any = self.roles.models.get("value")
        return () if value is None else (value.model,)

    def collator(self, **options: Any) -> PromptCollator:
        """Batches of prompts."""
        from llf_core.stages.ppo.prompts import PromptCollator

        return PromptCollator(**options)

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor:
        """Tokens of the answers; of an evaluation's batch, prompts."""
        from llf_core.data.batch_split import document_count, trained_token_count

        if "targets" in batch:
            return trained_token_count(batch)
        ids: Tensor = batch["input_ids"]
        return ids.new_tensor(document_count(batch))

    def batches(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers that an optimizer step learns from; where none are left, new ones are written first."""
        import numpy as np

        kept = self.rollout
        if kept is None or self.served >= self.plan.steps:
            kept = self.rollout = self._new_phase()
        own = self.plan.part(len(kept), self.phase, self.served, self.rank)
        if len(own) < len(batches):  # few could be judged
            own = [int(one) for one in np.resize(own or range(len(kept)), len(batches))]
        self.served += 1
        self.made += 1
        return [
            kept.batch([int(one) for one in part], self.work.tokenizer, "cpu", flatten=self.work.flattens)
            for part in np.array_split(own, len(batches))
        ]

    # -- the loss ----------------------------------------------------------------------------------------
    def loss_sum(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,  # noqa: ARG002 - refused by a rule
        record_losses: Callable[[Tensor, Tensor], object] | None = None,  # noqa: ARG002 - an answer has no example's loss
    ) -> Tensor:
        """Sum of the clipped policy loss and the weighted value loss over a micro-batch's tokens.

        Args:
            model: the policy, perhaps wrapped.
            batch: of `Rollout.batch`; in an evaluation, prompts: they are answered, and the loss is `-score`.
            label_smoothing: not used.
            record_losses: not called.

        Returns:
            A float32 scalar with a graph.
        """
        from llf_core.stages.ppo.losses import approximate_kl, policy_losses, value_losses
        from llf_core.stages.ppo.policy_output import act

        if "targets" not in batch:
            return self._evaluated(batch)
        acted = act(model, batch, self.temperature, self.roles.value)
        assert acted.values is not None  # noqa: S101 - for the type checker
        old, options = batch["old_log_probs"], self.options
        policy = policy_losses(acted.log_probs, old, batch["advantages"], options.ppo_cliprange)
        value = value_losses(acted.values, batch["old_values"], batch["returns"], options.ppo_cliprange_value)
        tokens = len(old)
        for name, values in (
            ("policy_loss", policy.losses),
            ("value_loss", value.losses),
            ("clip_fraction", policy.clipped),
            ("value_clip_fraction", value.clipped),
            ("approx_kl", approximate_kl(acted.log_probs.detach(), old)),
        ):
            self.measures.add(name, values.detach().sum(), tokens)
        return policy.losses.sum() + options.ppo_vf_coef * value.losses.sum()

    # -- a phase -----------------------------------------------------------------------------------------
    def _new_phase(self) -> Rollout:
        """Writes and scores answers; nothing changes where that fails.

        Where none of them can be judged, the next prompts are answered: at most all of them once.

        Raises:
            StopTraining: no answer to them can be judged, or one's score is no number.
        """
        from llf_core.stages.ppo.scoring import Written

        examples, known = self.work.data.examples, self._known
        asked, seen = self.asked, 0
        for phase in range(self.phase + 1, self.phase + 1 + min(TRIES, self.plan.phases(len(known)))):
            places = [known[one] for one in self.plan.places(len(known), asked, self.rank)]
            prompts = [list(examples[place]["input_ids"]) for place in places]
            answers = self.author.write(prompts, self.plan.drawing(phase, self.rank), self.made)
            written = [Written(*one) for one in zip(prompts, answers, places, strict=True)]
            judged = self._judged(written, self.author.score(written, self.made))
            asked, seen = asked + len(prompts) * self.plan.processes, seen + len(prompts)
            if self._everywhere(bool(judged)):
                break
        else:
            raise self._unjudged("another process's" if judged else f"any of {seen}")
        rollout = self._learn_from(judged)
        self.phase, self.served, self.asked = phase, 0, asked
        self._show(judged)
        self.measures.commit()
        return rollout

    def _judged(self, written: Sequence[Written], scores: Sequence[Score]) -> list[tuple[Written, float, Score]]:
        """The answers that could be judged, with what they have earned; of the others a warning tells once."""
        from llf_core.rewards import unscored_message

        pairs = zip(written, scores, strict=True)
        found = [(one, score.total, score) for one, score in pairs if score.total is not None]
        left = len(written) - len(found)
        for name in scores[0].rewards:
            given = [value for score in scores if (value := score.rewards[name]) is not None]
            self.measures.add(f"rewards/{name}/mean", sum(given), len(given))
            self.measures.add(f"rewards/{name}/skipped", len(scores) - len(given), len(scores))
        if scores[0].rewards:
            self.measures.add("unjudged", left, len(written))
        if left and not self._told:
            self._told = True
            self.work.writer.event("warning", key="reward_functions", message=unscored_message(left, len(written)))
        return found

    def _unjudged(self, what: str) -> StopTraining:
        """What ends a run whose functions say nothing."""
        from llf_core.rewards import BUILT_IN
        from llf_core.stages.base.stop_training import StopTraining

        own = [name for name in self.work.config.stage.reward_functions or () if name not in BUILT_IN]
        mend = (
            f"Fix {own[0]} so that it gives a number; a run that has not finished goes on with "
            f"run.resume(rewards=[{own[0]}])."
            if own
            else ""
        )
        return StopTraining(
            f"No reward function applies to {what} answers (all gave None).",
            mend or "Start a new run with a reward function that applies to them.",
        )

    def _learn_from(self, judged: Sequence[tuple[Written, float, Score]]) -> Rollout:
        """What the updates are made of; moments and coefficient take note of the answers."""
        import torch

        from llf_core.stages.base.all_reduce import sum_over_ranks
        from llf_core.stages.ppo.experience import build_experience

        written = [one for one, _, _ in judged]
        given = torch.tensor([score for _, score, _ in judged], dtype=torch.float32)
        read = self.author.read(written)
        if self.options.ppo_score_norm:
            self.moments.update(given, sum_over_ranks)
            given = self.moments.normalised(given)
        found = build_experience(written, given, read, self.options, self.controller.coefficient, add_up=sum_over_ranks)
        kl = found.kl.double()
        total, count = sum_over_ranks(torch.stack([kl.sum(), torch.ones_like(kl).sum()])).tolist()
        self.controller.update(total / count, int(count))
        self._tell_scores(judged)
        for measure in found.told:
            self.measures.add(*measure)
        return found.rollout

    # -- an evaluation -----------------------------------------------------------------------------------
    def _evaluated(self, batch: Mapping[str, Any]) -> Tensor:
        """Minus the scores of new answers to prompts; every evaluation draws with the same seed."""
        import torch

        from llf_core.stages.ppo.prompts import EVALUATION, prompts_of
        from llf_core.stages.ppo.scoring import Written

        prompts = prompts_of(batch)
        numbers: list[int] = batch["numbers"].tolist()
        drawing = self.plan.drawing(numbers[0], self.rank, EVALUATION)
        answers = self.author.write(prompts, drawing, self.made)
        assert self.work.data.eval is not None  # noqa: S101 - for the type checker
        held = {number: place for place, number in enumerate(self.work.data.eval["number"])}
        places = [held[number] for number in numbers]
        written = [Written(*one, held_out=True) for one in zip(prompts, answers, places, strict=True)]
        judged = self._judged(written, self.author.score(written, self.made))
        self._tell_scores(judged)
        total = -sum(score for _, score, _ in judged)
        self.measures.add("loss", total, len(judged))  # in place of a mean over all prompts, judged or not
        return torch.tensor(float(total), device=batch["input_ids"].device)

    def evaluated(self, means: Mapping[str, float]) -> None:
        """Ends a run of whose held-out answers none can be judged."""
        if "reward" not in means:
            raise self._unjudged("any of the held-out")

    # -- what is told ------------------------------------------------------------------------------------
    def _tell_scores(self, judged: Sequence[tuple[Written, float, Score]]) -> None:
        import statistics

        written, scores, ends = [one for one, _, _ in judged], [score for _, score, _ in judged], self._ends()
        for name, values in (
            ("reward", scores),
            ("response_length", [float(len(one.answer)) for one in written]),
            ("response_ended", [float(one.answer[-1] in ends) for one in written]),
        ):
            self.measures.add(name, sum(values), len(values))
        if len(scores) > 1:
            self.measures.add("reward_std", statistics.stdev(scores), 1)

    def _show(self, judged: Sequence[tuple[Written, float, Score]]) -> None:
        """Writes some answers down."""
        if self.rank:
            return
        for one, total, score in judged[: self.work.config.stage.kept_completions]:
            self.work.writer.sample(
                step=self.made,
                kind="completion",
                prompt=self._question(one),
                text=self.author.text(one.answer),
                reward=total,
                **({"rewards": dict(score.rewards)} if score.rewards else {}),
            )

    def _question(self, one: Written) -> str:
        """What was asked last in a prompt; of one whose record is not read as messages, all of it."""
        if self._questions is None:
            self._questions = self._asked()
        return self._questions.get(one.place) or self.author.text(one.prompt)

    def _asked(self) -> dict[int, str]:
        from llf_core.data.errors import DataError
        from llf_core.data.prompts import prompts_of

        try:
            found = prompts_of(self.work.config, self.work.data, (self.work.folder.path,))
        except DataError:  # none can be told as messages
            return {}
        rows = zip(found.places, found.train, strict=True)
        return {place: str(row["prompt"][-1]["content"]) for place, row in rows}

    def _ends(self) -> set[int]:
        from llf_core.generation.generate import end_tokens

        return set(end_tokens(self.work.model, self.work.tokenizer) or ())

    # -- checkpoints -------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Where the run is; the answers and the value function are in `save`'s file."""
        return {
            "made": self.made,
            "phase": self.phase,
            "served": self.served,
            "asked": self.asked,
            "coefficient": self.controller.coefficient,
            "moments": dataclasses.asdict(self.moments),
            "sizes": self.author.sizes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on there."""
        from llf_core.stages.ppo.token_rewards import RunningMoments

        if not state:
            return
        for name in ("made", "phase", "served", "asked"):
            setattr(self, name, state[name])
        self.controller.coefficient = state["coefficient"]
        self.moments = RunningMoments(**state["moments"])
        self.author.sizes = dict(state["sizes"])

    def save(self, checkpoint: Path) -> None:
        """Writes the value function and the answers."""
        from safetensors.torch import save_file

        tensors = {f"value.{name}": one.detach().contiguous() for name, one in self.roles.beside.trained().items()}
        if self.rollout is not None:
            tensors |= {f"rollout.{name}": one for name, one in self.rollout.tensors().items()}
        save_file(tensors, checkpoint / self._file)

    def load(self, checkpoint: Path) -> None:
        """Reads them."""
        import torch
        from safetensors.torch import load_file

        from llf_core.stages.ppo.rollout import Rollout

        tensors = load_file(checkpoint / self._file)
        with torch.no_grad():
            for name, parameter in self.roles.beside.trained().items():
                parameter.copy_(tensors[f"value.{name}"])
        kept = {name.removeprefix("rollout."): one for name, one in tensors.items() if name.startswith("rollout.")}
        self.rollout = Rollout.of(kept) if kept else None

    @property
    def _file(self) -> str:
        return f"ppo-{self.rank}.safetensors" if self.rank else "ppo.safetensors"

    # -- this machine ------------------------------------------------------------------------------------
    def _everywhere(self, here: bool) -> bool:
        """Whether something is so on all processes."""
        import torch

        from llf_core.stages.base.all_reduce import sum_over_ranks

        return bool(sum_over_ranks(torch.tensor(float(here))) == self.plan.processes)
