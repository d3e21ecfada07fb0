"""Functions that evaluate in a cell: `llf.answers`, `llf.losses`, `llf.win_rate` and `llf.reward_accuracy`."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.number_format import percent
from llf_core.evaluation.answers import Answer, answer_in_child
from llf_core.evaluation.reward_accuracy import Accuracy, reward_accuracy_in_child
from llf_core.evaluation.run_losses import Losses, losses_in_child
from llf_core.evaluation.win_rate import MAX_NEW_TOKENS, MAX_PROMPTS, WinRate, win_rate_in_child
from llf_core.runs import RunFolder
from llf_widgets.cell_output import ProgressLine, plain_table
from llf_widgets.home import run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.launch import Run


class Answers(list[Answer]):
    """A list of `Answer` with a table as its display. Model text is escaped, never interpreted as HTML."""

    def _repr_html_(self) -> str:
        return plain_table(("Prompt", "Base", "Tuned"), [(one.prompt, one.base, one.tuned) for one in self])

    def __repr__(self) -> str:
        from llf_core.evaluation.demo_report import side_by_side

        return side_by_side(self)


def answers(
    run: Run | RunFolder | Path | str, prompts: str | Sequence[str], max_new_tokens: int = 64, *, trust: bool = False
) -> Answers:
    """Generate completions of a finished run's base and tuned model with greedy decoding.

    The models are loaded in a child process, which ends if the cell is interrupted.

    Args:
        prompts: user messages, each a separate conversation; a single text counts as one.
        max_new_tokens: maximum length of a completion in tokens, at least 1.
        trust: whether to allow Python code that comes with the model, permanently.

    Returns:
        One `Answer` (`prompt`, `base`, `tuned`) for each prompt, displayed as a table; also stored in the run's
        `samples.jsonl`.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Example:
        >>> llf.answers(run, ["What is the capital of France?"])  # doctest: +SKIP
    """
    run_id, home = named_run(run)
    texts = prompt_list(prompts)
    with ProgressLine("Importing the libraries …") as line:
        return Answers(answer_in_child(run_id, texts, max_new_tokens, home, line, trust=trust))


def losses(run: Run | RunFolder | Path | str, data: str | Path | None = None, *, trust: bool = False) -> Losses:
    """Compute the evaluation loss of a finished run's base and tuned model on the same examples.

    The models are loaded in a child process, which ends if the cell is interrupted.

    Args:
        data: a name of `dataset_info.json`, a file, a folder or a hub id; several separated by commas. None for the
            run's validation data.
        trust: whether to allow Python code that comes with the model or the run, permanently.

    Returns:
        `.base` and `.tuned`, mean losses in nats per trained token (or per pair or answer, as the stage counts), and
        `.examples`, their number.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Example:
        >>> llf.losses(run)  # doctest: +SKIP
        Losses(base=2.4127, tuned=1.6113, examples=50)
    """
    run_id, home = named_run(run)
    named = None if data is None else data_name(data)
    print("Computing the losses of the base and of the result …", flush=True)  # noqa: T201 - the cell's progress
    return losses_in_child(run_id, named, home, trust=trust)


class DisplayedWinRate(WinRate):
    """A `WinRate` with a table as its display. Model text is escaped, never interpreted as HTML."""

    def __repr__(self) -> str:
        return (
            f"Win rate {percent(self.rate)}, 95 % band {percent(self.low)} to {percent(self.high)}: "
            f"{self.wins} won, {self.ties} equal, {self.losses} lost. "
            f"Mean reward {self.base:.3f} of the base, {self.tuned:.3f} of the result."
        )

    def _repr_html_(self) -> str:
        names = ("Prompt", "Base", "Reward", "Result", "Reward")
        rows = [
            (one.prompt, one.base, f"{one.base_score:.3f}", one.tuned, f"{one.tuned_score:.3f}")
            for one in self.contests
        ]
        return f"<p>{escape(repr(self))}</p>{plain_table(names, rows)}"


def win_rate(  # noqa: PLR0913 - each of them is named
    run: Run | RunFolder | Path | str,
    reward_model: Run | RunFolder | Path | str,
    prompts: str | Sequence[str] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_prompts: int = MAX_PROMPTS,
    trust: bool = False,
) -> DisplayedWinRate:
    """Compute how often a reward model prefers the completions of a run's result to its base model's.

    Decoding is greedy. The models are loaded in a child process, which ends if the cell is interrupted.

    Args:
        reward_model: a run of stage rm or its id, a folder, or a hub id.
        prompts: user messages, each a separate conversation; a single text counts as one. None for the run's validation
            data without last answers.
        max_new_tokens: maximum length of a completion in tokens, at least 1.
        max_prompts: maximum number of prompts from the validation data, at least 1.
        trust: whether to allow Python code that comes with the models, permanently.

    Returns:
        The `.rate` with its 95 % interval from `.low` to `.high`, and `.contests`: each prompt with both completions
        and rewards. Equal rewards count as one half. It is displayed as a table.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Source:
        Ties as one half as in AlpacaEval (github.com/tatsu-lab/alpaca_eval). Interval: E. B. Wilson, Probable
        inference, the law of succession, and statistical inference, JASA 22 (1927), p. 209.

    Example:
        >>> llf.win_rate(run, "20261124-142530-smollm2-rm-lora")  # doctest: +SKIP
        Win rate 71 %, 95 % band 61 % to 79 %: 71 won, 0 equal, 29 lost. Mean reward -0.412 of the base, …
    """
    run_id, home = named_run(run)
    scorer, _ = named_model(reward_model)
    texts = None if prompts is None else prompt_list(prompts)
    with ProgressLine() as line:
        found = win_rate_in_child(
            run_id,
            scorer,
            texts,
            max_new_tokens=max_new_tokens,
            most=max_prompts,
            home=home,
            progress=line,
            trust=trust,
        )
    return DisplayedWinRate(**{one.name: getattr(found, one.name) for one in fields(found)})


def reward_accuracy(
    reward_model: Run | RunFolder | Path | str,
    data: str | Path,
    *,
    dataset_dir: str | None = None,
    max_pairs: int | None = None,
    trust: bool = False,
) -> Accuracy:
    """Compute how often a reward model scores the chosen response above the rejected one.

    The model is loaded in a child process, which ends if the cell is interrupted.

    Args:
        reward_model: a run of stage rm or its id, a folder, or a hub id.
        data: preference pairs, ideally ones that were not used for training: a name of `dataset_info.json`, a file, a
            folder or a hub id; several separated by commas.
        dataset_dir: folder of `dataset_info.json`; None for `data`.
        max_pairs: maximum number of pairs, at least 1, taken from the beginning; None for all.
        trust: whether to allow Python code that comes with the reward model, permanently.

    Returns:
        `.accuracy` (0 to 1) with its 95 % interval from `.low` to `.high`; `.pairs`, their number; `.margin`, the mean
        reward of the chosen response minus that of the rejected one; and `.dropped`, the number of unusable records by
        reason. Equal rewards count as wrong.

    Raises:
        UntrustedCodeError: code would run that you have not allowed.

    Source:
        Accuracy as in RewardBench, arXiv 2403.13787, section 4.2. Interval: E. B. Wilson, JASA 22 (1927), p. 209.

    Example:
        >>> llf.reward_accuracy("20261124-142530-smollm2-rm-lora", "held_out.jsonl")  # doctest: +SKIP
        Accuracy(accuracy=0.72, low=0.6540…, high=0.7776…, pairs=200, margin=0.9134…, dropped={})
    """
    scorer, home = named_model(reward_model)
    named = data_name(data)
    with ProgressLine() as line:
        return reward_accuracy_in_child(
            scorer, named, dataset_dir=dataset_dir, most=max_pairs, home=home, progress=line, trust=trust
        )


def named_run(run: Run | RunFolder | Path | str) -> tuple[str, Path | None]:
    """Id and `LLF_HOME` of a run; the home of an id alone is None, for the environment's."""
    if isinstance(run, str) and len(Path(run).parts) < 2:  # noqa: PLR2004 - a path has several
        return run, None
    folder = run_folder(run)
    return folder.id, folder.home


def named_model(model: Run | RunFolder | Path | str) -> tuple[str, Path | None]:
    """A reward model as text (an id, a hub id or a path), and `LLF_HOME` of a run; None for the environment's."""
    if isinstance(model, str | Path):
        return str(model), None
    folder = model if isinstance(model, RunFolder) else getattr(model, "folder", None)
    if not isinstance(folder, RunFolder):
        raise TypeError(f"{str(model)[:80]} is not a reward model. Expected a run, its id, a folder, or a hub id.")
    return str(folder.path), folder.home


def prompt_list(prompts: str | Sequence[str]) -> list[str]:
    """Prompts as a list, also of a single text; a `TypeError` for anything else."""
    given: list[object] = [prompts] if isinstance(prompts, str) or not hasattr(prompts, "__iter__") else list(prompts)
    texts = []
    for one in given:
        if not isinstance(one, str):
            raise TypeError(f"A prompt is {str(one)[:80]}. Expected a text.")
        texts.append(one)
    return texts


def data_name(data: str | Path) -> str:
    """A data set (a name, a path or a hub id) as text; a `TypeError` for anything else."""
    if not isinstance(data, str | Path):
        raise TypeError(f"The data set is {str(data)[:80]}. Expected a name, a file, a folder or a hub id.")
    return str(data)
