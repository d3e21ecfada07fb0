"""The callback that writes drawn answers down, and looks after a trainer of TRL's between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.runs import RunWriter
    from llf_core.stages.online.trl_rewards import TRLRewards
    from llf_core.stages.online.trl_trainers import Online


class CompletionsCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes drawn answers with their rewards into `samples.jsonl`; its trainer remembers where it is between steps."""

    def __init__(self, writer: RunWriter, trl_rewards: TRLRewards, max_completions: int) -> None:
        """Binds it to a run.

        Args:
            writer: of the attempt.
            trl_rewards: knows the answers.
            max_completions: answers of a logged step that are written.
        """
        self.trainer: Online | None = None
        self._writer = writer
        self._trl_rewards = trl_rewards
        self._max_completions = max_completions

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Resume the rollout of the checkpoint.

        Args:
            args: the training arguments.
            state: the trainer's state.
            control: the trainer's control flags; not changed.
        """
        if self.trainer is not None:
            self.trainer.resume_rollout()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save the RNG state before completions are sampled.

        Args:
            args: the training arguments.
            state: the trainer's state.
            control: the trainer's control flags; not changed.
        """
        self._save_step_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save the RNG state before an evaluation samples completions.

        Args:
            args: the training arguments.
            state: the trainer's state.
            control: the trainer's control flags; not changed.
        """
        self._save_step_state()

    def _save_step_state(self) -> None:
        if self.trainer is not None:
            self.trainer.save_step_state()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write some completions of the logged step.

        Args:
            args: the training arguments.
            state: the trainer's state.
            control: the trainer's control flags; not changed.
            logs: the logged values.
        """
        if "reward" not in (logs or {}):
            return
        for one in self._trl_rewards.shown(self._max_completions):
            self._writer.sample(
                step=state.global_step,
                kind="completion",
                prompt=one.completion.prompt,
                text=one.completion.answer,
                reward=self._trl_rewards.total(one),
                rewards=one.rewards,
            )
