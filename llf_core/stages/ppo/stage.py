"""PPO (arXiv 1707.06347) on the scores of a language model's own completions (arXiv 1909.08593, 2203.02155)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llf_core.config.declarations.stages.ppo import PPOOptions
from llf_core.stages.base.ranks import rank, world_size
from llf_core.stages.base.stage import LossStage
from llf_core.user_functions.function_kind import as_float

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.data.media_files import MediaLimits
    from llf_core.stages.base.context import StopTraining, TrainingContext
    from llf_core.stages.completion_scores import PromptScoring, SampledCompletion, Score
    from llf_core.stages.ppo.experience import KLController, RunningMoments
    from llf_core.stages.ppo.models import PPOModels
    from llf_core.stages.ppo.rollout import Rollout, RolloutWorker

FILE = "ppo.safetensors"

TRIES = 16
"""Maximum number of phases in a row of which no completion can be scored; chosen by hand."""


class PPO(LossStage):
    """Samples completions of prompts, scores them, and makes better ones likelier.

    A phase samples completions for `per_device_train_batch_size · gradient_accumulation_steps · ppo_buffer_size`
    prompts and makes `ppo_buffer_size · ppo_epochs` optimizer steps on them. An epoch samples for every prompt once,
    as in LLaMA-Factory; `max_steps`, `save_steps` and `logging_steps` count optimizer steps (LLaMA-Factory counts
    phases).

    Each checkpoint has the state between two steps: completions that later steps still learn from, moments of the
    scores, KL coefficient, value function.
    """

    label_names: ClassVar[tuple[str, ...]] = ("input_ids",)

    def __init__(self, context: TrainingContext | None = None) -> None:
        super().__init__(context)
        self.options = PPOOptions() if context is None else context.config.options(PPOOptions)
        if context is None:
            return
        from llf_core.stages.ppo.experience import KLController, RunningMoments
        from llf_core.stages.ppo.models import build_models
        from llf_core.stages.ppo.rollout import RolloutWorker

        training, generation = context.config.training, context.config.generation
        self.temperature = generation.temperature if generation.do_sample else 1.0
        self.plan: Plan = Plan(
            step=training.per_device_train_batch_size * training.gradient_accumulation_steps * world_size(),
            parts=self.options.ppo_buffer_size,
            passes=self.options.ppo_epochs,
            seed=training.seed,
        )
        self.controller: KLController = KLController(self.options.ppo_kl_coef, self.options.ppo_target)
        self.moments: RunningMoments = RunningMoments()
        self.rollout: Rollout | None = None
        self.phase = -1
        self.steps_done = self.phase_steps_done = self.prompts_used = 0
        self.ppo_models: PPOModels = build_models(context, self.temperature)
        self.rollout_worker: RolloutWorker = RolloutWorker(context, self.ppo_models, self.temperature)
        self._prompt_texts: dict[int, str] | None = None
        self._warned = False

    # -- the Trainer's loader --------------------------------------------------------------------------
    def examples(self, examples: Dataset, *, held_out: bool = False) -> Dataset | PlaceholderDataset:
        """A placeholder with the length of an epoch for training, or the evaluation prompts that can be scored."""
        if not held_out:
            return PlaceholderDataset(self.plan.loader_length(len(self._usable_prompts)))
        indices: Sequence[int] | None = getattr(self.ppo_models.score, "eval_indices", None)
        return examples if indices is None else examples.select(indices)

    @property
    def _usable_prompts(self) -> Sequence[int]:
        indices: Sequence[int] | None = getattr(self.ppo_models.score, "indices", None)
        return range(len(self.context.data.examples)) if indices is None else indices

    def scoring(self) -> PromptScoring:
        """Unnormalized scores of the reward model, endpoint or reward functions, for a preview before training."""
        from llf_core.stages.completion_scores import PromptScoring

        return PromptScoring(self._usable_prompts, lambda completions: self.rollout_worker.score(completions, 0))

    def auxiliary_models(self) -> Sequence[nn.Module]:
        """The separate value model, trained beside the policy; empty if the value function is a head on the policy."""
        value: Any = self.ppo_models.models.get("value")
        return () if value is None else (value.model,)

    def collator(self, **options: Any) -> PromptCollator:
        """Create the collator of prompts without completions."""
        return PromptCollator(**options)

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Tensor:
        """Number of completion tokens in a training batch, of prompts in an evaluation batch; an int64 scalar."""
        from llf_core.data.collate import document_count, trained_token_count

        if "targets" in batch:
            return trained_token_count(batch)
        ids: Tensor = batch["input_ids"]
        return ids.new_tensor(document_count(batch))

    def batches(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Micro-batches that an optimizer step learns from; samples and scores a new phase first if none are left.

        Sampling happens between two steps, so that a checkpoint never lies within it. Each call counts as a step.
        """
        import numpy as np

        rollout = self.rollout
        if rollout is None or self.phase_steps_done >= self.plan.steps:
            rollout = self.rollout = self._collect_rollout()
        whole = self.plan.minibatch(len(rollout), self.phase, self.phase_steps_done)
        needed = len(batches) * world_size()
        if len(whole) < needed:  # few could be scored
            whole = [int(one) for one in np.resize(whole or range(len(rollout)), needed)]
        own = np.array_split(whole, world_size())[rank()]
        self.phase_steps_done += 1
        self.steps_done += 1
        return [
            rollout.batch([int(one) for one in part], self.context.tokenizer, "cpu", flatten=self.context.flattens)
            for part in np.array_split(own, len(batches))
        ]

    # -- the loss ----------------------------------------------------------------------------------------
    def loss_sum(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,  # noqa: ARG002 - refused by a rule
        record_losses: Callable[[Tensor, Tensor], object] | None = None,  # noqa: ARG002 - a completion is no example
    ) -> Tensor:
        """Sum over a micro-batch's tokens of `L_policy + ppo_vf_coef · L_value`, a float32 scalar.

        arXiv 1707.06347, equation 9 without its entropy term; see `policy_losses` and `value_losses`. In an
        evaluation, completions are sampled, and the loss is minus their scores.
        """
        from llf_core.stages.ppo.experience import approximate_kl, policy_losses, value_losses
        from llf_core.stages.ppo.models import compute_policy

        if "targets" not in batch:
            return self._evaluation_loss(batch)
        output = compute_policy(model, batch, self.temperature, self.ppo_models.value)
        assert output.values is not None  # noqa: S101 - for the type checker
        old, options = batch["old_log_probs"], self.options
        policy = policy_losses(output.log_probs, old, batch["advantages"], options.ppo_cliprange)
        value = value_losses(output.values, batch["old_values"], batch["returns"], options.ppo_cliprange_value)
        tokens = len(old)
        for name, values in (
            ("policy_loss", policy.losses),
            ("value_loss", value.losses),
            ("clip_fraction", policy.clipped),
            ("value_clip_fraction", value.clipped),
            ("approx_kl", approximate_kl(output.log_probs.detach(), old)),
        ):
            self.measures.add(name, values.detach().sum(), tokens)
        return policy.losses.sum() + options.ppo_vf_coef * value.losses.sum()

    # -- a phase -----------------------------------------------------------------------------------------
    def _collect_rollout(self) -> Rollout:
        """Sample and score the completions of a phase; if that fails, nothing has changed.

        If none of them can be scored, the next prompts are tried: all of them at most once.
        """
        from llf_core.stages.completion_scores import SampledCompletion

        examples, usable = self.context.data.examples, self._usable_prompts
        prompts_used, seen = self.prompts_used, 0
        for phase in range(self.phase + 1, self.phase + 1 + min(TRIES, self.plan.phases(len(usable)))):
            own = slice(rank() * self.plan.answers // world_size(), (rank() + 1) * self.plan.answers // world_size())
            indices = [usable[one] for one in self.plan.prompt_indices(len(usable), prompts_used)[own]]
            prompts = [list(examples[index]["input_ids"]) for index in indices]
            seed = self.plan.sampling_seed(phase) + own.start
            answers = self.rollout_worker.generate(prompts, seed, self.steps_done)
            completions = [SampledCompletion(*one) for one in zip(prompts, answers, indices, strict=True)]
            scored = self._keep_scored(completions, self.rollout_worker.score(completions, self.steps_done))
            prompts_used, seen = prompts_used + self.plan.answers, seen + len(prompts)
            if self._on_all_ranks(bool(scored)):
                break
        else:
            raise self._unscored_error("another process's" if scored else f"any of {seen}")
        rollout = self._build_rollout(scored)
        self.phase, self.phase_steps_done, self.prompts_used = phase, 0, prompts_used
        self._write_samples(scored)
        self.measures.commit()
        return rollout

    def _keep_scored(
        self, completions: Sequence[SampledCompletion], scores: Sequence[Score]
    ) -> list[tuple[SampledCompletion, float, Score]]:
        """The completions that could be scored, with their scores; warns of the others once."""
        from llf_core.rewards import unscored_message

        pairs = zip(completions, scores, strict=True)
        found = [(one, score.total, score) for one, score in pairs if score.total is not None]
        left = len(completions) - len(found)
        for name in scores[0].rewards:
            given = [value for score in scores if (value := score.rewards[name]) is not None]
            self.measures.add(f"rewards/{name}/mean", sum(given), len(given))
            self.measures.add(f"rewards/{name}/skipped", len(scores) - len(given), len(scores))
        if scores[0].rewards:
            self.measures.add("unjudged", left, len(completions))
        if left and not self._warned:
            self._warned = True
            self.context.writer.event(
                "warning", key="reward_functions", message=unscored_message(left, len(completions))
            )
        return found

    def _unscored_error(self, what: str) -> StopTraining:
        from llf_core.rewards import BUILT_IN
        from llf_core.stages.base.context import StopTraining

        own = [name for name in self.context.config.stage.reward_functions or () if name not in BUILT_IN]
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

    def _build_rollout(self, scored: Sequence[tuple[SampledCompletion, float, Score]]) -> Rollout:
        """Compute advantages and returns, and update score moments and KL coefficient, over all ranks.

        Every rank keeps the completions of all, so that a step learns from the same ones on any number of ranks.
        """
        import torch

        from llf_core.stages.base.ranks import from_all, sum_over_ranks
        from llf_core.stages.ppo.experience import build_experience
        from llf_core.stages.ppo.rollout import Rollout

        completions = [one for one, _, _ in scored]
        given = torch.tensor([score for _, score, _ in scored], dtype=torch.float32)
        outputs = self.rollout_worker.compute_outputs(completions)
        if self.options.ppo_score_norm:
            self.moments.update(given, sum_over_ranks)
            given = self.moments.normalized(given)
        found = build_experience(
            completions, given, outputs, self.options, self.controller.coefficient, all_reduce=sum_over_ranks
        )
        kl = found.kl.double()
        total, count = sum_over_ranks(torch.stack([kl.sum(), torch.ones_like(kl).sum()])).tolist()
        self.controller.update(total / count, int(count))
        self._measure_scores(scored, [one for own in from_all([score for _, score, _ in scored]) for one in own])
        for measure in found.metrics:
            self.measures.add(*measure)
        return Rollout.joined(from_all(found.rollout))

    # -- an evaluation -----------------------------------------------------------------------------------
    def _evaluation_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Minus the sum of the scores of new completions; every evaluation samples with the same seed."""
        import torch

        from llf_core.stages.completion_scores import SampledCompletion

        prompts = prompts_of(batch)
        numbers: list[int] = batch["numbers"].tolist()
        assert self.context.data.eval is not None  # noqa: S101 - for the type checker
        held = {number: index for index, number in enumerate(self.context.data.eval["number"])}
        indices = [held[number] for number in numbers]
        seed = self.plan.sampling_seed(0, EVALUATION) + indices[0]
        answers = self.rollout_worker.generate(prompts, seed, self.steps_done)
        completions = [SampledCompletion(*one, held_out=True) for one in zip(prompts, answers, indices, strict=True)]
        scored = self._keep_scored(completions, self.rollout_worker.score(completions, self.steps_done))
        self._measure_scores(scored, [score for _, score, _ in scored])
        total = -sum(score for _, score, _ in scored)
        self.measures.add("loss", total, len(scored))  # instead of a mean over all prompts, scored or not
        return torch.tensor(float(total), device=batch["input_ids"].device)

    def evaluated(self, means: Mapping[str, float]) -> None:
        """End the run by StopTraining if no completion of the evaluation could be scored."""
        if "reward" not in means:
            raise self._unscored_error("any of the held-out")

    # -- metrics and samples ------------------------------------------------------------------------------------
    def _measure_scores(
        self, scored: Sequence[tuple[SampledCompletion, float, Score]], spread: Sequence[float]
    ) -> None:
        """Add the metrics of completions; `spread` has the scores whose standard deviation is measured."""
        import statistics

        completions, scores, ends = [one for one, _, _ in scored], [score for _, score, _ in scored], self._ends()
        for name, values in (
            ("reward", scores),
            ("response_length", [float(len(one.answer)) for one in completions]),
            ("response_ended", [float(one.answer[-1] in ends) for one in completions]),
        ):
            self.measures.add(name, sum(values), len(values))
        if len(spread) > 1:
            self.measures.add("reward_std", statistics.stdev(spread), 1)

    def _write_samples(self, scored: Sequence[tuple[SampledCompletion, float, Score]]) -> None:
        if rank():
            return
        for one, total, score in scored[: self.context.config.stage.kept_completions]:
            self.context.writer.sample(
                step=self.steps_done,
                kind="completion",
                prompt=self._prompt_text(one),
                text=self.rollout_worker.text(one.answer),
                reward=total,
                **({"rewards": dict(score.rewards)} if score.rewards else {}),
            )

    def _prompt_text(self, one: SampledCompletion) -> str:
        """The last message of a prompt; the whole prompt if its record cannot be read as messages."""
        if self._prompt_texts is None:
            from llf_core.stages.completion_scores import last_messages

            self._prompt_texts = last_messages(self.context)
        return self._prompt_texts.get(one.index) or self.rollout_worker.text(one.prompt)

    def _ends(self) -> set[int]:
        from llf_core.generation.generate import end_tokens

        return set(end_tokens(self.context.model, self.context.tokenizer) or ())

    # -- checkpoints -------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Position in the run, KL coefficient, moments and chunk sizes, as JSON."""
        return {
            "made": self.steps_done,
            "phase": self.phase,
            "served": self.phase_steps_done,
            "asked": self.prompts_used,
            "coefficient": self.controller.coefficient,
            "moments": asdict(self.moments),
            "sizes": self.rollout_worker.sizes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the position of a checkpoint, from which prompts, seeds and minibatches follow.

        Raises:
            ValueError: an entry is missing, of another type or out of range.
        """
        from llf_core.stages.ppo.experience import RunningMoments

        if not state:
            return
        position = [state[key] for key in ("made", "phase", "served", "asked")]
        sizes, kept = dict(state["sizes"]), {one.name: state["moments"][one.name] for one in fields(RunningMoments)}
        expected = self.rollout_worker.sizes.keys()
        whole = all(isinstance(one, int) and one >= 0 for one in (*position, *sizes.values()))
        if not whole or sizes.keys() != expected or 0 in sizes.values():
            raise ValueError(
                f"its position is {position} with chunks of {sizes}, and expected are integers, chunks of at least 1"
            )
        numbers = {"coefficient": state["coefficient"], **kept}
        finite = all(isinstance(one, int | float) and math.isfinite(as_float(one)) for one in numbers.values())
        if not finite or any(one < 0 for name, one in numbers.items() if name != "mean"):
            raise ValueError(
                f"its KL coefficient and moments are {numbers}, and expected are finite numbers, of which only the "
                "mean may be below 0"
            )
        self.steps_done, self.phase, self.phase_steps_done, self.prompts_used = position
        self.controller.coefficient, self.moments = state["coefficient"], RunningMoments(**kept)
        self.rollout_worker.sizes = sizes

    def save(self, checkpoint: Path) -> None:
        """Write the value function and the phase's completions; rank 0 only."""
        from safetensors.torch import save_file

        if rank():
            return
        tensors = {
            f"value.{name}": one.detach().contiguous()
            for name, one in self.ppo_models.value_container.trained().items()
        }
        if self.rollout is not None:
            tensors |= {f"rollout.{name}": one for name, one in self.rollout.tensors().items()}
        save_file(tensors, checkpoint / FILE)

    def load(self, checkpoint: Path) -> None:
        """Read the value function and the completions that `save` wrote."""
        import torch
        from safetensors.torch import load_file

        from llf_core.stages.ppo.rollout import Rollout

        tensors = load_file(checkpoint / FILE)
        with torch.no_grad():
            for name, parameter in self.ppo_models.value_container.trained().items():
                parameter.copy_(tensors[f"value.{name}"])
        rollout = {name.removeprefix("rollout."): one for name, one in tensors.items() if name.startswith("rollout.")}
        self.rollout = Rollout.from_tensors(rollout) if rollout else None

    # -- this machine ------------------------------------------------------------------------------------
    def _on_all_ranks(self, here: bool) -> bool:
        import torch

        from llf_core.stages.base.ranks import sum_over_ranks

        return bool(sum_over_ranks(torch.tensor(float(here))) == world_size())


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
