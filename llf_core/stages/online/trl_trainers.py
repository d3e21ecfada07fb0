"""TRL's GRPO and RLOO trainers as the trainers of a run: stopped, resumed and recorded like any other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import GRPOTrainer, RLOOTrainer

from llf_core.generation.generate import continuations, without_accelerate
from llf_core.generation.sampling import Sampling
from llf_core.rewards import RewardError, fix_message
from llf_core.runs import Checkpoints
from llf_core.runs.writer import ProgressEvents
from llf_core.stages.base.loop import RNGState, TrainingLoop
from llf_core.stages.base.ranks import rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from trl.trainer.utils import RepeatSampler

    from llf_core.runs import RunWriter
    from llf_core.stages.online.trl_rewards import Rollout, TRLRewards


class OnlineTrainer(TrainingLoop):
    """First base of a subclass of TRL's trainers; a test pins the private names of theirs that it uses.

    `rollout` has the completions of a checkpoint that the next steps still learn from.
    """

    control: TrainerControl

    def __init__(self, *, trl_rewards: TRLRewards, rollout: Rollout, **kwargs: Any) -> None:
        super().__init__(reward_funcs=trl_rewards.functions, **kwargs)
        self.trl_rewards = trl_rewards
        self.rollout = rollout
        trl_rewards.training = lambda: bool(self.model.training)
        trl_rewards.tell = lambda key, message: self.tell(key, message)  # noqa: PLW0108 - which is set later
        self._step_state: tuple[RNGState, int] | None = None
        self._evaluated = 0  # batches of the present evaluation

    @property
    def seen(self) -> Tensor:
        """Tokens of prompts and completions, and of completions alone, since the attempt began, `[2]`, int64."""
        before = getattr(self, "_initial_num_input_tokens_seen", 0)
        return torch.tensor([self.state.num_input_tokens_seen - before, self.trl_rewards.tokens])

    @seen.setter
    def seen(self, _: Tensor) -> None:
        """Ignore a count `[2]`: TRL counts the tokens."""

    def train(self, *args: object, **kwargs: object) -> Any:
        """Train; if a reward function fails, save a checkpoint of the last complete step to resume from.

        The `what_to_do` of its RewardError names the saved step.
        """
        with self._checkpoint_on_reward_error():
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; if a reward function fails, save a checkpoint of the last complete step to resume from."""
        self._evaluated = 0
        with self._checkpoint_on_reward_error():
            return super().evaluate(*args, **kwargs)

    @contextmanager
    def _checkpoint_on_reward_error(self) -> Iterator[None]:
        try:
            yield
        except RewardError as error:
            if not error.what_to_do:  # else an evaluation inside the loop has done it
                step = self._save_last_step()
                kept = f"The training up to step {step} is saved. " if step else ""
                error.what_to_do = kept + fix_message(error.name)
            raise

    def _save_last_step(self) -> int:
        """Write the checkpoint of the last complete step, in its state before the next one sampled completions."""
        step: int = self.state.global_step
        if step and not Checkpoints(self.stage.context.folder).complete(step):
            self.model.zero_grad()
            if self._step_state is not None:
                randomness, self.state.num_input_tokens_seen = self._step_state
                randomness.restore()
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return step

    def resume_rollout(self) -> None:
        """Restore TRL's count of batches and the checkpoint's completions, which TRL itself resets."""
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self._buffered_inputs = self.rollout.take()

    def save_step_state(self) -> None:
        """Save the state that sampling changes (RNG state, token count) for a checkpoint."""
        self._step_state = RNGState(self.args.device), self.state.num_input_tokens_seen

    def unused_completions(self) -> list[dict[str, Any]] | None:
        """TRL's buffered batches (tensors `[completions, …]` and scalars) that the next step learns from, or None."""
        whole = self.args.steps_per_generation * self.num_iterations
        buffered: list[dict[str, object]] | None = self._buffered_inputs
        return buffered if self._step % whole else None

    def create_model_card(self, *_: object, **__: object) -> None:
        """Do nothing: the result has the run's own model card."""

    def _send_telemetry(self) -> None: ...

    def sample_completions(self, prompts: list[list[int]]) -> list[list[int]]:
        """Sample completions with this project's decode loop, and write its progress as events.

        Each completion has a seed of its own, from the run's seed, the step and its place in the batch of all
        processes, so that it does not depend on their number.

        Returns:
            Token ids of each completion, with the token that ends it if it was not truncated.
        """
        use, number = (0, self._step) if self.model.training else (1, self._evaluated)
        self._evaluated += use
        seed = int(np.random.default_rng((self.args.seed, use, number)).integers(2**40)) + rank() * len(prompts)
        sampling = Sampling(True, self.temperature, self.top_k, self.top_p, self.repetition_penalty, seed)  # noqa: FBT003
        model = self.accelerator.unwrap_model(self.model)
        progress = ProgressEvents(self.stage.context.writer, "rollout", len(prompts), step=self.state.global_step)
        with without_accelerate(model):
            return continuations(
                model,
                self.processing_class,
                prompts,
                sampling=sampling,
                max_new_tokens=self.max_completion_length,
                batch_size=len(prompts),
                on_token=lambda done, tokens: progress(done, tokens=tokens),
            )

    def _get_train_sampler(self, *args: object) -> Sampler[int]:
        return ResumableSampler(super()._get_train_sampler(*args))


class OnlineGRPO(OnlineTrainer, GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer of Group Relative Policy Optimization (arXiv 2402.03300) in a run."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: object) -> tuple[list[list[int]], None]:
        return self.sample_completions(prompt_ids), None


class OnlineRLOO(OnlineTrainer, RLOOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer of REINFORCE Leave-One-Out (arXiv 2402.14740) in a run."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: object) -> list[list[int]]:
        return self.sample_completions(prompt_ids)


class ResumableSampler(Sampler[int]):
    """TRL's sampler with an order per epoch that does not depend on where a run was resumed.

    TRL's own derives the order of an epoch from the generator's state after the epoch before.
    """

    def __init__(self, sampler: RepeatSampler) -> None:
        self._sampler = sampler
        self._pass = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0; accelerate calls it, also after a resume."""
        self._pass = epoch

    def __iter__(self) -> Iterator[int]:
        generator = self._sampler.generator.manual_seed(self._sampler.seed)
        for _ in range(self._pass):
            torch.randperm(self._sampler.num_samples, generator=generator)
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


def drop_copied_reference(trainer: OnlineTrainer) -> None:
    """Delete TRL's copy of a new adapter as reference: the model without the adapter is the same reference."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")


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
