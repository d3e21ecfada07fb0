"""What the stages share that draw answers and learn from their rewards: GRPO and RLOO, by TRL's trainers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.declarations.stages.sampled_groups import GENERATION_KEYS
from llf_core.config.rules.sampling import parse_reward_weights
from llf_core.stages.base.stage import TrainerStage
from llf_core.stages.online.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llf_core.config.option import Section
    from llf_core.data.prompts import Prompts
    from llf_core.rewards import Reward
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.online.trl_trainers import Online

logger = logging.getLogger(__name__)

SHARED_KEYS = (
    "num_generations", "max_completion_length", "epsilon", "epsilon_high", "num_iterations",
    "mask_truncated_completions",
)  # fmt: skip
"""Keys of the section `stage` that TRL knows by the same names."""
ROLLOUT = "rollout.pt"


class OnlineStage(TrainerStage):
    """Draws several answers to a prompt, has them judged by reward functions, and makes the better ones likelier.

    The steps are TRL's; data, model, checkpoints and what is told of the run are ours.

    Attributes:
        options: the stage's own options, whose keys TRL knows by the same names.
        rollout: drawn answers that the next steps still learn from, where a checkpoint holds some.
    """

    options: ClassVar[type[Section]]

    def __init__(self, context: TrainingContext) -> None:
        """Draws nothing yet."""
        super().__init__(context)
        self.rollout = Rollout()
        self._trainer: Online | None = None

    def trainer(self, settings: Callable[..., Any], callbacks: list[Any]) -> Any:
        """Create the TRL trainer of the loaded model, with the run's prompts and reward functions.

        Args:
            settings: makes the training arguments of a given class.
            callbacks: the run's callbacks.

        Returns:
            The trainer, an `Online`.

        Raises:
            DataError: there are too few prompts for a step, or a column that a reward function needs is not there.
            RewardError: a reward function is not there.
        """
        from llf_core.data.prompts import prompts_of
        from llf_core.rewards import load_rewards
        from llf_core.stages.online.completions_callback import CompletionsCallback
        from llf_core.stages.online.trl_rewards import TRLRewards
        from llf_core.stages.online.trl_trainers import drop_copied_reference

        config, stage = self.context.config, self.context.config.stage
        kind, make = self._trl_classes()
        values = self._values()
        arguments = settings(kind=kind, **values)
        options = {"reward_pattern": stage.reward_pattern, "max_completion_length": stage.max_completion_length}
        rewards = load_rewards(stage.reward_functions or (), self.context.folder.code, options)
        prompts = prompts_of(config, self.context.data, (self.context.folder.path,))
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

    @abstractmethod
    def _trl_classes(self) -> tuple[type[Any], type[Online]]:
        """TRL's class of arguments, and our trainer of them."""

    def _values(self) -> dict[str, Any]:
        """What TRL is told beside the training section."""
        config = self.context.config
        stage, training = config.stage, config.training
        weights = parse_reward_weights(stage.reward_weights) or (1.0,) * len(stage.reward_functions or ())
        evaluated = training.per_device_eval_batch_size
        values = {key: getattr(stage, key) for key in SHARED_KEYS}
        values |= {key: config.get(key) for key in (*GENERATION_KEYS, *self.options.model_fields)}
        values |= {
            "reward_weights": list(weights),
            "chat_template_kwargs": dict(self.context.data.template.options),
            # Whole groups of answers are evaluated.
            "per_device_eval_batch_size": -(-evaluated // stage.num_generations) * stage.num_generations,
            # Checkpointing was set on the model before; this is how TRL sets it again after it has drawn answers.
            "gradient_checkpointing": False,
            "gradient_checkpointing_kwargs": {"use_reentrant": config.model.use_reentrant_gc}
            | (training.gradient_checkpointing_kwargs or {}),
            "include_num_input_tokens_seen": "no",  # TRL counts
        }
        if stage.beta is not None:
            values["beta"] = stage.beta
        chooses = training.early_stopping_steps or training.load_best_model_at_end
        if chooses and training.metric_for_best_model in {None, "loss"}:
            values["metric_for_best_model"] = "reward"  # the loss of these stages says nothing
        return values

    def _check(self, prompts: Prompts, rewards: Sequence[Reward], needed: int) -> None:
        """Refuses what could not make a step, and says what was left out."""
        from llf_core.data import DataError

        if prompts.left_out:
            self.context.writer.event("warning", key="cutoff_len", message=prompts.left_out)
            logger.info(prompts.left_out)
        if len(prompts.train) < needed:
            raise DataError(
                f"There are {len(prompts.train):,} prompts, and a step samples completions of {needed:,} "
                "(per_device_train_batch_size times gradient_accumulation_steps, by num_generations). Lower one of the "
                f"first two, or add prompts. {prompts.left_out}".rstrip()
            )
        check_rewards(prompts, rewards)

    def save(self, checkpoint: Path) -> None:
        """Keeps the drawn answers that later steps learn from, where the checkpoint is between them."""
        import torch

        rollout = None if self._trainer is None else self._trainer.unused_completions()
        if rollout is not None:
            torch.save(rollout, checkpoint / ROLLOUT)

    def load(self, checkpoint: Path) -> None:
        """Takes them up again."""
        import torch

        if (checkpoint / ROLLOUT).is_file():
            device = self.context.plan.device
            self.rollout.inputs = torch.load(checkpoint / ROLLOUT, map_location=device, weights_only=True)


def check_rewards(prompts: Prompts, rewards: Sequence[Reward]) -> None:
    """Check that the data set has the columns that the reward functions need.

    Args:
        prompts: of the run.
        rewards: the reward functions.

    Raises:
        DataError: a column is missing, or the reference answers are.
    """
    from llf_core.data import DataError

    columns = ", ".join(prompts.columns)
    for reward in rewards:
        missing = [name for name in reward.signature.columns if name not in prompts.columns]
        if missing:
            raise DataError(
                f"The reward function {reward.name} takes {', '.join(missing)}, which is not a column of the data set "
                f"(columns: {columns}). Rename the parameter, or give it a default."
            )
        if reward.expects and not any(row["expected"] is not None for row in prompts.train):
            raise DataError(
                f"The reward {reward.name} needs a reference answer, and the data set has none (columns: "
                f"{columns}). Expected a column answer or solution; or take another reward function."
            )
