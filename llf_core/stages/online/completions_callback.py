"""Callback that writes sampled completions, and has TRL's trainer save its state between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from llf_core.runs import RunWriter
    from llf_core.stages.online.trl_rewards import TRLRewards
    from llf_core.stages.online.trl_trainers import OnlineTrainer


class CompletionsCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes sampled completions with their rewards to `samples.jsonl`, and saves the trainer's state between steps.

    `trainer` is set after it was created, since it is created with its callbacks.
    """

    def __init__(self, writer: RunWriter, trl_rewards: TRLRewards, max_completions: int) -> None:
        """Bind the callback to a run; `max_completions` of a logged step are written."""
        self.trainer: OnlineTrainer | None = None
        self._writer = writer
        self._trl_rewards = trl_rewards
        self._max_completions = max_completions

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Restore the checkpoint's completions, which the next steps still learn from."""
        if self.trainer is not None:
            self.trainer.resume_rollout()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save the RNG state before completions are sampled, for a checkpoint if a reward function then fails."""
        self._save_step_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Save the RNG state before an evaluation samples completions, in which a reward function may fail too."""
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
        """Write some completions of the logged step; nothing if there is no `reward` in the logs."""
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
