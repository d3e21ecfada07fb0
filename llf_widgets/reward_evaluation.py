"""`llf.win_rate(run, reward_model)` and `llf.reward_accuracy(reward_model, data)`."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING

from llf_core.evaluation.reward_accuracy import Accuracy, reward_accuracy_in_child
from llf_core.evaluation.win_rate import MAX_NEW_TOKENS, MAX_PROMPTS, WinRate, win_rate_in_child
from llf_widgets.plain_table import plain_table
from llf_widgets.progress_line import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.launch import Run


class DisplayedWinRate(WinRate):
    """A `WinRate` with a table as its display. Model text is escaped, never interpreted as HTML."""

    def __repr__(self) -> str:
        return (
            f"Win rate {self.rate:.0%}, 95 % band {self.low:.0%} to {self.high:.0%}: {self.wins} won, {self.ties} "
            f"equal, {self.losses} lost. Mean reward {self.base:.3f} of the base, {self.tuned:.3f} of the result."
        )

    def _repr_html_(self) -> str:
        names = ("Prompt", "Base", "Reward", "Result", "Reward")
        rows = [
            (one.prompt, one.base, f"{one.base_score:.3f}", one.tuned, f"{one.tuned_score:.3f}")
            for one in self.contests
        ]
        return f"<p>{escape(repr(self))}</p>{plain_table(names, rows)}"


def win_rate(  # noqa: PLR0913 - each of them is named
    run: Run | str,
    reward_model: Run | str,
    prompts: Sequence[str] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_prompts: int = MAX_PROMPTS,
    trust: bool = False,
) -> DisplayedWinRate:
    """Compute how often a reward model prefers the completions of a run's result to its base model's.

    The models are loaded in a child process, so the kernel's memory is not affected. Interrupting the cell ends it.

    Args:
        run: a run or its id.
        reward_model: a run of stage rm or its id, a folder, or a hub id.
        prompts: user messages, each a separate conversation; a single text counts as one. None for the run's validation
            data without last answers.
        max_new_tokens: maximum length of a completion in tokens.
        max_prompts: maximum number of prompts from the validation data.
        trust: whether to allow Python code that comes with the models, permanently.

    Returns:
        The rate with its 95 % interval (Wilson score interval, JASA 22, 1927), and each prompt with both completions
        and rewards.

    Raises:
        RuntimeError: the child process failed, for example since the run has no result or no validation data, or the
            reward model does not exist; the message has the reason.
        UntrustedCodeError: code would run that you have not allowed.
        OSError: the process cannot be started.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.

    Example:
        >>> llf.win_rate(run, "20261124-142530-smollm2-rm-lora")  # doctest: +SKIP
        Win rate 71%, 95 % band 61% to 79%: 71 won, 0 equal, 29 lost. Mean reward -0.412 of the base, …
    """
    asked = [prompts] if isinstance(prompts, str) else None if prompts is None else list(prompts)
    with ProgressLine() as line:
        found = win_rate_in_child(
            run if isinstance(run, str) else run.id,
            _reward_model(reward_model),
            asked,
            max_new_tokens=max_new_tokens,
            most=max_prompts,
            home=None if isinstance(run, str) else run.folder.home,
            progress=line,
            trust=trust,
        )
    return DisplayedWinRate(**{one.name: getattr(found, one.name) for one in fields(found)})


def reward_accuracy(
    reward_model: Run | str,
    data: str,
    *,
    dataset_dir: str | None = None,
    max_pairs: int | None = None,
    trust: bool = False,
) -> Accuracy:
    """Compute how often a reward model scores the chosen response above the rejected one.

    It is the quality of a reward model before it is used for training. The model is loaded in a child process.

    Args:
        reward_model: a run of stage rm or its id, a folder, or a hub id.
        data: a preference data set in the format of `dataset`, ideally one that was not used for training.
        dataset_dir: folder of named data sets; None for `data`.
        max_pairs: maximum number of pairs; None for all.
        trust: whether to allow Python code that comes with the reward model, permanently.

    Returns:
        Accuracy (0 to 1) with its 95 % confidence interval, number of pairs, mean margin in rewards, and the number of
        dropped records by reason.

    Raises:
        RuntimeError: the child process failed, for example since the reward model or data set does not exist, or it
            holds no pairs; the message has the reason.
        UntrustedCodeError: code would run that you have not allowed.
        OSError: the process cannot be started.
        HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.

    Example:
        >>> llf.reward_accuracy("20261124-142530-smollm2-rm-lora", "held_out.jsonl")  # doctest: +SKIP
        Accuracy(accuracy=0.72, low=0.65, high=0.78, pairs=200, margin=0.91, dropped={})
    """
    with ProgressLine() as line:
        return reward_accuracy_in_child(
            _reward_model(reward_model),
            data,
            dataset_dir=dataset_dir,
            most=max_pairs,
            home=None if isinstance(reward_model, str) else reward_model.folder.home,
            progress=line,
            trust=trust,
        )


def _reward_model(one: Run | str) -> str:
    return one if isinstance(one, str) else str(one.folder.path)
