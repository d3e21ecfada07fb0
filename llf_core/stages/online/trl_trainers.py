"""TRL's GRPO and RLOO trainers in a run of ours: stopped, resumed and told of like any other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler
from trl import GRPOTrainer, RLOOTrainer

from llf_core.generation.generate import continuations
from llf_core.generation.own_forward import without_accelerate
from llf_core.generation.sampling import Sampling
from llf_core.rewards import RewardError, fix_message
from llf_core.runs import Checkpoints
from llf_core.runs.progress_events import ProgressEvents
from llf_core.stages.base.loop import TrainingLoop
from llf_core.stages.base.oom_retry import RNGState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import TrainerControl
    from trl.trainer.utils import RepeatSampler

    from llf_core.stages.online.rollout import Rollout
    from llf_core.stages.online.trl_rewards import TRLRewards


class Online(TrainingLoop):
    """Stands in front of one of TRL's trainers; a test pins the names of theirs that it uses.

    Attributes:
        trl_rewards: the reward functions.
        rollout: completions that were drawn before a stop.
    """

    control: TrainerControl

    def __init__(self, *, trl_rewards: TRLRewards, rollout: Rollout, **kwargs: Any) -> None:
        """Takes what TRL's trainer takes, and the reward functions."""
        super().__init__(reward_funcs=trl_rewards.functions, **kwargs)
        self.trl_rewards = trl_rewards
        self.rollout = rollout
        trl_rewards.training = lambda: bool(self.model.training)
        trl_rewards.tell = lambda key, message: self.tell(key, message)  # noqa: PLW0108 - which is set later
        self._step_state: tuple[RNGState, int] | None = None

    @property
    def seen(self) -> Tensor:
        """`[2]`, tokens of prompts and answers, and of answers alone, since the attempt began."""
        before = getattr(self, "_initial_num_input_tokens_seen", 0)
        return torch.tensor([self.state.num_input_tokens_seen - before, self.trl_rewards.tokens])

    @seen.setter
    def seen(self, _: Tensor) -> None:
        """It is counted by TRL."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; if a reward function fails, save a checkpoint of the last complete step.

        Args:
            args: of `transformers.Trainer.train`.
            kwargs: of `transformers.Trainer.train`.

        Raises:
            RewardError: with what to do about it.
        """
        with self._checkpoint_on_reward_error():
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; if a reward function fails, save a checkpoint of the last complete step.

        Args:
            args: of `transformers.Trainer.evaluate`.
            kwargs: of `transformers.Trainer.evaluate`.

        Raises:
            RewardError: with what to do about it.
        """
        with self._checkpoint_on_reward_error():
            return super().evaluate(*args, **kwargs)

    @contextmanager
    def _checkpoint_on_reward_error(self) -> Iterator[None]:
        try:
            yield
        except RewardError as error:
            if not error.what_to_do:  # else an evaluation inside of the loop has done it
                step = self._save_last_step()
                kept = f"The training up to step {step} is saved. " if step else ""
                error.what_to_do = kept + fix_message(error.name)
            raise

    def _save_last_step(self) -> int:
        """Writes the checkpoint of the last whole step, as if no answer of the next one had been drawn."""
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
        """Goes on with TRL's count of batches, and with answers that were drawn before the stop."""
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self._buffered_inputs = self.rollout.take()

    def save_step_state(self) -> None:
        """Keeps what drawing answers changes, as it is between two steps."""
        self._step_state = RNGState(self.args.device), self.state.num_input_tokens_seen

    def unused_completions(self) -> list[dict[str, Any]] | None:
        """The drawn answers that the next step still learns from."""
        whole = self.args.steps_per_generation * self.num_iterations
        buffered: list[dict[str, Any]] | None = self._buffered_inputs
        return buffered if self._step % whole else None

    def create_model_card(self, *_: object, **__: object) -> None:
        """None: TRL would write one beside the checkpoints, and the result gets ours."""

    def _send_telemetry(self) -> None:
        """None: a run tells nobody of itself."""

    def sample_completions(self, prompts: list[list[int]]) -> list[list[int]]:
        """Answers of our decode loop, which is several times as fast as `model.generate` on a CPU.

        Args:
            prompts: token ids of each.

        Returns:
            Token ids of each answer; the one that ends it is its last.
        """
        seed = int(torch.randint(2**31, (1,)))  # of the run's own generator, so that a resumed run draws the same
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


class OnlineGRPO(Online, GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """Group Relative Policy Optimization (arXiv 2402.03300)."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: object) -> tuple[list[list[int]], None]:
        return self.sample_completions(prompt_ids), None


class OnlineRLOO(Online, RLOOTrainer):  # type: ignore[misc]  # TRL ships no types
    """REINFORCE Leave-One-Out (arXiv 2402.14740)."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: object) -> list[list[int]]:
        return self.sample_completions(prompt_ids)


class ResumableSampler(Sampler[int]):
    """A sampler of TRL's, whose order in each pass is the same in a run that is resumed in the middle of it.

    TRL's own draws the order of a pass from where the pass before has left its generator.
    """

    def __init__(self, sampler: RepeatSampler) -> None:
        self._sampler = sampler
        self._pass = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which pass comes next."""
        self._pass = epoch

    def __iter__(self) -> Iterator[int]:
        """The pass."""
        generator = self._sampler.generator.manual_seed(self._sampler.seed)
        for _ in range(self._pass):
            torch.randperm(self._sampler.num_samples, generator=generator)
        return iter(self._sampler)

    def __len__(self) -> int:
        """Of a pass."""
        return len(self._sampler)


def drop_copied_reference(trainer: Online) -> None:
    """Drop TRL's copy of a new adapter, which it makes to have a reference.

    A new adapter changes nothing yet, so that the model without it is the same reference.

    Args:
        trainer: just made.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
