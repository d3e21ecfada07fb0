"""GRPO and RLOO: sample completions and learn from their rewards, by TRL's trainers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.declarations.stages.sampled_groups import GENERATION_KEYS, GRPOOptions, RLOOOptions
from llf_core.config.rules.evaluation import best_metric
from llf_core.config.rules.stages import parse_reward_weights
from llf_core.stages.base.ranks import rank, world_size
from llf_core.stages.base.stage import TrainerStage
from llf_core.stages.online.trl_rewards import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from transformers import TrainerCallback, TrainingArguments
    from trl import GRPOConfig, RLOOConfig

    from llf_core.config.option import Section
    from llf_core.data.validation_split import Prompts
    from llf_core.rewards import Reward
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import PromptScoring
    from llf_core.stages.online.trl_trainers import OnlineTrainer

logger = logging.getLogger(__name__)

SHARED_KEYS = (
    "num_generations", "max_completion_length", "epsilon", "epsilon_high", "num_iterations",
    "mask_truncated_completions",
)  # fmt: skip


class OnlineStage(TrainerStage):
    """Samples several completions per prompt, scores them by reward functions, and makes the better ones likelier.

    Attributes:
        options: the stage's own options, whose keys TRL has too.
        rollout: sampled completions of a checkpoint that the next steps still learn from.
    """

    options: ClassVar[type[Section]]

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        self.rollout = Rollout()
        self._trainer: OnlineTrainer | None = None

    def trainer(self, settings: Callable[..., TrainingArguments], callbacks: list[TrainerCallback]) -> OnlineTrainer:
        """Create TRL's trainer with the run's prompts and reward functions, and warn of prompts that are left out."""
        from llf_core.data.validation_split import prompts_of
        from llf_core.rewards import load_rewards
        from llf_core.stages.online.trl_rewards import TRLRewards
        from llf_core.stages.online.trl_trainers import CompletionsCallback, drop_copied_reference

        config, stage = self.context.config, self.context.config.stage
        kind, make = self._trl_classes()
        values = self._values()
        options = {"reward_pattern": stage.reward_pattern, "max_completion_length": stage.max_completion_length}
        rewards = load_rewards(stage.reward_functions or (), self.context.folder.code, options)
        prompts = prompts_of(config, self.context.data, (self.context.folder.path,))
        if prompts.eval is not None:
            values["per_device_eval_batch_size"] = self._evaluation_batch(len(prompts.eval))
        arguments = settings(kind=kind, **values)
        self._check(prompts, rewards, arguments.generation_batch_size // stage.num_generations)
        trl_rewards = TRLRewards(
            rewards,
            weights=values["reward_weights"],
            decode=lambda ids: self.context.tokenizer.decode(ids, skip_special_tokens=True),
            processes=arguments.world_size,
        )
        callback = CompletionsCallback(self.context.writer, trl_rewards, stage.kept_completions)
        trainer = make(
            stage=self,
            trl_rewards=trl_rewards,
            rollout=self.rollout,
            model=self.context.model,
            args=arguments,
            train_dataset=prompts.train,
            eval_dataset=prompts.eval,
            processing_class=self.context.tokenizer,
            callbacks=[*callbacks, callback],
        )
        callback.trainer = trainer
        if not config.get("adapter_name_or_path") or config.get("create_new_adapter"):
            drop_copied_reference(trainer)
        self._trainer = trainer
        return trainer

    def scoring(self) -> PromptScoring:
        """Weighted sum of the run's reward functions, for a preview of rewards before training."""
        from llf_core.stages.completion_scores import PromptScoring, scoring_by_functions

        functions = scoring_by_functions(self.context)
        return PromptScoring(functions.indices, functions)

    @abstractmethod
    def _trl_classes(self) -> tuple[type[Any], type[OnlineTrainer]]: ...

    def _values(self) -> dict[str, Any]:
        config = self.context.config
        stage, training = config.stage, config.training
        weights = parse_reward_weights(stage.reward_weights) or (1.0,) * len(stage.reward_functions or ())
        values = {key: getattr(stage, key) for key in SHARED_KEYS}
        values |= {key: config.get(key) for key in (*GENERATION_KEYS, *self.options.model_fields)}
        values |= {
            "reward_weights": list(weights),
            "chat_template_kwargs": dict(self.context.data.template.options),
            # Checkpointing is enabled on the model already; TRL enables it again by these options after it has sampled.
            "gradient_checkpointing": False,
            "gradient_checkpointing_kwargs": {"use_reentrant": config.model.use_reentrant_gc}
            | (training.gradient_checkpointing_kwargs or {}),
            "include_num_input_tokens_seen": "no",  # TRL counts
        }
        if stage.beta is not None:
            values["beta"] = stage.beta
        chooses = training.early_stopping_steps or training.load_best_model_at_end
        if chooses:
            values["metric_for_best_model"] = best_metric(config)
        return values

    def _evaluation_batch(self, prompts: int) -> int:
        """Completions of one process in a batch of an evaluation, so that all processes together have whole groups.

        With several processes all batches are full: TRL repeats completions if the last one does not fill all
        processes.
        """
        from llf_core.data import DataError

        config, each, processes = self.context.config, self.context.config.stage.num_generations, world_size()
        wanted = -(-config.training.per_device_eval_batch_size // each) * each
        if processes == 1:
            return wanted
        for size in range(wanted, 0, -1):
            if size * processes % each == 0 and prompts * each % (size * processes) == 0:
                return size
        raise DataError(
            f"{prompts:,} evaluation prompts with {each} completions each cannot be shared equally by {processes} "
            f"processes. Expected a number of prompts that is a multiple of {processes}."
        )

    def _check(self, prompts: Prompts, rewards: Sequence[Reward], needed: int) -> None:
        from llf_core.data import DataError
        from llf_core.stages.completion_scores import check_columns, report_left_out

        report_left_out(self.context, prompts)
        if len(prompts.train) < needed:
            raise DataError(
                f"There are {len(prompts.train):,} prompts, and a step samples completions of {needed:,} "
                "(per_device_train_batch_size times gradient_accumulation_steps, by num_generations). Lower one of the "
                f"first two, or add prompts. {prompts.left_out}".rstrip()
            )
        check_columns(prompts, rewards)

    def save(self, checkpoint: Path) -> None:
        """Write the completions that later steps still learn from, of each rank; nothing if the next step samples."""
        import torch

        rollout = None if self._trainer is None else self._trainer.unused_completions()
        if rollout is not None:
            torch.save(rollout, checkpoint / _rollout_file(rank()))

    def load(self, checkpoint: Path) -> None:
        """Read the completions that `save` wrote, onto the run's device; the trainer takes them when it begins.

        If there are none, or they are of another number of processes, the next step samples.
        """
        import torch

        written = {one.name for one in checkpoint.glob("rollout*.pt")}
        if written == {_rollout_file(one) for one in range(world_size())}:
            path, device = checkpoint / _rollout_file(rank()), self.context.plan.device
            self.rollout.inputs = torch.load(path, map_location=device, weights_only=True)


def _rollout_file(rank: int) -> str:
    return f"rollout-{rank}.pt" if rank else "rollout.pt"


class GRPO(OnlineStage):
    """GRPO: the advantage of a completion is its reward relative to the group of completions of the same prompt.

    Group Relative Policy Optimization, arXiv 2402.03300.
    """

    options = GRPOOptions

    def _trl_classes(self) -> tuple[type[GRPOConfig], type[OnlineTrainer]]:
        from trl import GRPOConfig

        from llf_core.stages.online.trl_trainers import OnlineGRPO

        return GRPOConfig, OnlineGRPO


class RLOO(OnlineStage):
    """RLOO: the advantage of a completion is its reward, with KL penalty, minus the mean of the group's others.

    REINFORCE Leave-One-Out, arXiv 2402.14740.
    """

    options = RLOOOptions

    def _trl_classes(self) -> tuple[type[RLOOConfig], type[OnlineTrainer]]:
        from trl import RLOOConfig

        from llf_core.stages.online.trl_trainers import OnlineRLOO

        return RLOOConfig, OnlineRLOO
