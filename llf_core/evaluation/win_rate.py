"""How often a reward model prefers the answers of a run's result to those of its base, which the run began with.

`python -m llf_core.evaluation.win_rate RUN_ID REWARD_MODEL` prints it as JSON; notebooks and the CLI start it as a
child process, so that no view ever holds a model.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llf_core.evaluation import worker_process
from llf_core.evaluation.confidence_interval import wilson_interval
from llf_core.runs import open_run
from llf_core.runs.config_file import run_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs import RunFolder

    Messages = list[dict[str, Any]]

MODULE = "llf_core.evaluation.win_rate"
TOKENS, MOST = 128, 100


@dataclass(frozen=True)
class PairwiseComparison:
    """One prompt, answered twice, and what the reward model says of it.

    Attributes:
        prompt: the last thing that was said to the models.
        base: the base's answer.
        tuned: the result's.
        base_score: reward of the base's answer.
        tuned_score: reward of the result's.
    """

    prompt: str
    base: str
    tuned: str
    base_score: float
    tuned_score: float


@dataclass(frozen=True)
class WinRate:
    """How the answers of a run's result compare with its base's.

    Attributes:
        rate: share of the prompts at which the result's answer has the higher reward; a tie is a half.
        low: lower end of the rate's 95 % band (Wilson).
        high: upper end.
        wins: prompts that the result wins.
        ties: prompts with equal rewards.
        losses: prompts that the base wins.
        base: mean reward of the base's answers.
        tuned: mean reward of the result's answers.
        contests: each prompt.
    """

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    base: float
    tuned: float
    contests: tuple[PairwiseComparison, ...]


def judged(contests: Sequence[PairwiseComparison]) -> WinRate:
    """Counts contests, at least one."""
    count = len(contests)
    wins = sum(one.tuned_score > one.base_score for one in contests)
    losses = sum(one.tuned_score < one.base_score for one in contests)
    ties = count - wins - losses
    low, high = wilson_interval(wins + ties / 2, count)
    base, tuned = (sum(getattr(one, name) for one in contests) / count for name in ("base_score", "tuned_score"))
    return WinRate((wins + ties / 2) / count, low, high, wins, ties, losses, base, tuned, tuple(contests))


def win_rate(  # noqa: PLR0913 - what is asked, of whom, how long
    folder: RunFolder,
    reward_model: str,
    prompts: Sequence[str] | None = None,
    *,
    max_new_tokens: int = TOKENS,
    most: int = MOST,
    progress: Progress = worker_process.silent,
) -> WinRate:
    """Has a finished run's base and its result answer prompts (greedily), and a reward model score the answers.

    Both are asked with the run's chat template, so they read the same tokens. One model is in memory at a time.

    Args:
        folder: a run with `output/`.
        reward_model: see `llf_core.models.reward_model.load_scorer`.
        prompts: user messages, each a conversation of its own; else what the run held out, without its last answer.
        max_new_tokens: where an answer that does not end is cut.
        most: of what the run held out, at most the first so many.
        progress: called with what is done, how many, and of how many.

    Raises:
        FileNotFoundError: the run has no result yet.
        ModelError: its result writes no answers; the reward model is not there or is none.
        DataError: it held nothing out, and no prompts are given.
        ValueError: no prompt is given.
    """
    from llf_core.models.reward_model import find_scorer, load_scorer

    if not folder.output.is_dir():
        raise FileNotFoundError(f"{folder.id} has no output yet. Expected a finished run: wait for it, or resume it.")
    if prompts is not None and not prompts:
        raise ValueError("No prompt is given. Expected at least one, or none at all for what the run held out.")
    config = run_config(folder)
    find_scorer(reward_model, config)  # before anything is computed
    asked, texts = _answers(folder, config, prompts, max_new_tokens, most, progress)
    scorer = load_scorer(reward_model, config)
    told = [{"role": "assistant", "content": text} for of in ("base", "tuned") for text in texts[of]]
    talks = [[*messages, answer] for messages, answer in zip(asked * 2, told, strict=True)]
    scores = scorer.scores(talks, progress=lambda done, total: progress("Scoring answers", done, total))
    said = [str(messages[-1]["content"]) for messages in asked]
    rows = zip(said, texts["base"], texts["tuned"], scores[: len(said)], scores[len(said) :], strict=True)
    return judged([PairwiseComparison(*row) for row in rows])


def _answers(  # noqa: PLR0913, PLR0917 - what is asked, of whom, how long
    folder: RunFolder,
    config: RunConfig,
    prompts: Sequence[str] | None,
    max_new_tokens: int,
    most: int,
    progress: Progress,
) -> tuple[list[Messages], dict[str, list[str]]]:
    """The prompts as messages, and the answers of base and tuned."""
    from llf_core.data import template_of
    from llf_core.data.formats.conversation import Conversation
    from llf_core.data.label_mask import Encoded, encode
    from llf_core.data.render import render_prompt
    from llf_core.data.validation_split import held_out
    from llf_core.evaluation.load_run import load_base_and_tuned
    from llf_core.generation.generate import answer_ids
    from llf_core.models import load_tokenizer, resolve_model

    tokenizer = load_tokenizer(resolve_model(config.model.model_name_or_path, config), config)
    template = template_of(config, tokenizer)
    system: Messages = [{"role": "system", "content": text}] if (text := config.data.default_system) else []
    if prompts is None:
        asked = [_question(talk.messages) for talk in held_out(config, tokenizer, most)]
    else:
        asked = [[*system, {"role": "user", "content": prompt}] for prompt in prompts]
    read = encode(tokenizer, [render_prompt(template, tokenizer, Conversation(tuple(one))) for one in asked])
    ids = [one.ids.tolist() for one in read if isinstance(one, Encoded)]  # without answers, all are
    texts = {}
    for of, model, _ in load_base_and_tuned(folder, config):

        def told(done: int, of: str = of) -> None:
            progress(f"Answers of the {'base' if of == 'base' else 'result'}", done, len(ids))

        ends = template.end_ids(tokenizer)
        texts[of] = answer_ids(model, tokenizer, ids, ends=ends, max_new_tokens=max_new_tokens, on_done=told)
    return asked, texts


def _question(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """A conversation up to its last answer."""
    answered = messages[-1]["role"] == "assistant"
    return [dict(message) for message in (messages[:-1] if answered else messages)]


def win_rate_in_child(  # noqa: PLR0913 - as `win_rate`
    run_id: str,
    reward_model: str,
    prompts: Sequence[str] | None = None,
    *,
    max_new_tokens: int = TOKENS,
    most: int = MOST,
    home: Path | None = None,
    progress: Progress = worker_process.silent,
    trust: bool = False,
) -> WinRate:
    """`win_rate` in a process of its own: the caller loads no model and no torch. An interrupt ends the process.

    `trust` allows foreign code.

    Raises:
        RuntimeError: why it fails.
    """
    options = [f"--tokens={max_new_tokens}", f"--most={most}", *([] if prompts is None else ["--given"])]
    named = [run_id, reward_model, *(prompts or ())]
    made = worker_process.ask(MODULE, *options, "--", *named, home=home, progress=progress, trust=trust, of=run_id)
    contests = tuple(PairwiseComparison(**one) for one in made.pop("contests"))
    return WinRate(**made, contests=contests)


def main() -> None:
    """Prints the win rate as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("reward_model")
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--given", action="store_true")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--most", type=int, default=MOST)
    asked = parser.parse_args()
    worker_process.answer(
        lambda progress: asdict(
            win_rate(
                open_run(asked.run_id),
                asked.reward_model,
                asked.prompts if asked.given else None,
                max_new_tokens=asked.tokens,
                most=asked.most,
                progress=progress,
            )
        )
    )


if __name__ == "__main__":
    main()
