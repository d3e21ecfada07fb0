"""Win rate of a run's result against its base model, judged by a reward model.

`python -m llf_core.evaluation.win_rate RUN_ID REWARD_MODEL` prints it as JSON.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llf_core.evaluation import worker_process
from llf_core.metrics.wilson_interval import wilson_interval
from llf_core.runs import open_run
from llf_core.runs.config_file import run_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs import RunFolder

    Messages = list[dict[str, object]]

MODULE = "llf_core.evaluation.win_rate"
MAX_NEW_TOKENS, MAX_PROMPTS = 128, 100


@dataclass(frozen=True)
class PairwiseComparison:
    """A prompt, the completions of both models, and their rewards."""

    prompt: str
    base: str
    tuned: str
    base_score: float
    tuned_score: float


@dataclass(frozen=True)
class WinRate:
    """Win rate of a run's result against its base model, with its 95 % interval (Wilson).

    Attributes:
        rate: fraction of prompts at which the tuned model's completion has the higher reward; a tie counts one half.
        wins: number of prompts that the tuned model wins.
        base: mean reward of the base model's completions.
        tuned: mean reward of the tuned model's completions.
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


def win_rate_of(contests: Sequence[PairwiseComparison]) -> WinRate:
    """Compute the win rate from at least one comparison with finite rewards.

    Ties count one half as in AlpacaEval (github.com/tatsu-lab/alpaca_eval); interval of `wilson_interval`.
    """
    count = len(contests)
    wins = sum(one.tuned_score > one.base_score for one in contests)
    losses = sum(one.tuned_score < one.base_score for one in contests)
    ties = count - wins - losses
    low, high = wilson_interval(wins + ties / 2, count)
    base, tuned = (sum(getattr(one, name) for one in contests) / count for name in ("base_score", "tuned_score"))
    return WinRate((wins + ties / 2) / count, low, high, wins, ties, losses, base, tuned, tuple(contests))


def win_rate(  # noqa: PLR0913 - what is generated and who scores it
    folder: RunFolder,
    reward_model: str,
    prompts: list[str] | tuple[str, ...] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    most: int = MAX_PROMPTS,
    progress: Progress = worker_process.no_progress,
) -> WinRate:
    """Complete prompts greedily with a finished run's base model and its result, and compare their rewards.

    Both models get the run's chat template. One model is in memory at a time.

    Args:
        folder: run with `output/`.
        reward_model: see `llf_core.models.reward_model_files.load_reward_model`.
        prompts: user messages, each its own conversation; None for the run's evaluation examples without their last
            completion.
        max_new_tokens: maximum number of tokens of a completion, at least 1.
        most: maximum number of evaluation examples, at least 1, taken from the beginning.

    Raises:
        FileNotFoundError: the run has no result yet.
        ValueError: `prompts` is empty, or `most` is below 1.
    """
    from llf_core.models.reward_model_files import find_reward_model, load_reward_model

    if not folder.output.is_dir():
        raise FileNotFoundError(f"{folder.id} has no output yet. Expected a finished run. Wait for it, or resume it.")
    if prompts is not None and not prompts:
        raise ValueError("The list of prompts is empty. Expected at least one, or None for the evaluation data.")
    if most < 1:
        raise ValueError(f"The maximum number of examples is {most}. Expected an integer of at least 1.")
    config = run_config(folder)
    find_reward_model(reward_model, config)  # an error comes before anything is computed
    asked, texts = _answers(folder, config, prompts, max_new_tokens, most, progress)
    scorer = load_reward_model(reward_model, config)
    told: Messages = [{"role": "assistant", "content": text} for of in ("base", "tuned") for text in texts[of]]
    talks = [[*messages, answer] for messages, answer in zip(asked * 2, told, strict=True)]
    scores = scorer.scores(talks, progress=lambda done, total: progress("Scoring responses", done, total))
    said = [str(messages[-1]["content"]) for messages in asked]
    rows = zip(said, texts["base"], texts["tuned"], scores[: len(said)], scores[len(said) :], strict=True)
    return win_rate_of([PairwiseComparison(*row) for row in rows])


def _answers(  # noqa: PLR0913, PLR0917 - the arguments of `win_rate`
    folder: RunFolder,
    config: RunConfig,
    prompts: list[str] | tuple[str, ...] | None,
    max_new_tokens: int,
    most: int,
    progress: Progress,
) -> tuple[list[Messages], dict[str, list[str]]]:
    from llf_core.data import template_of
    from llf_core.data.answer_ranges import render_prompt
    from llf_core.data.conversation import Conversation
    from llf_core.data.label_mask import Encoded, encode
    from llf_core.data.validation_split import validation_conversations
    from llf_core.evaluation.loaded_targets import load_base_and_tuned
    from llf_core.generation.generate import answer_ids
    from llf_core.models import load_tokenizer, resolve_model

    tokenizer = load_tokenizer(resolve_model(config.model.model_name_or_path, config), config)
    template = template_of(config, tokenizer)
    system: Messages = [{"role": "system", "content": text}] if (text := config.data.default_system) else []
    if prompts is None:
        asked = [_prompt(talk.messages) for talk in validation_conversations(config, tokenizer, most)]
    else:
        asked = [[*system, {"role": "user", "content": prompt}] for prompt in prompts]
    read = encode(tokenizer, [render_prompt(template, tokenizer, Conversation(tuple(one))) for one in asked])
    ids = [one.ids.tolist() for one in read if isinstance(one, Encoded)]  # all are
    texts = {}
    for of, model, _ in load_base_and_tuned(folder, config):

        def told(done: int, of: str = of) -> None:
            progress(f"Answers of the {'base' if of == 'base' else 'result'}", done, len(ids))

        ends = template.end_ids(tokenizer)
        texts[of] = answer_ids(model, tokenizer, ids, ends=ends, max_new_tokens=max_new_tokens, on_done=told)
    return asked, texts


def _prompt(messages: Sequence[Mapping[str, object]]) -> Messages:
    """A conversation without its last completion."""
    answered = messages[-1]["role"] == "assistant"
    return [dict(message) for message in (messages[:-1] if answered else messages)]


def win_rate_in_child(  # noqa: PLR0913 - as `win_rate`
    run_id: str,
    reward_model: str,
    prompts: list[str] | tuple[str, ...] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    most: int = MAX_PROMPTS,
    home: Path | None = None,
    progress: Progress = worker_process.no_progress,
    trust: bool = False,
) -> WinRate:
    """Call `win_rate` in a child process: the caller loads neither a model nor torch."""
    options = [f"--tokens={max_new_tokens}", f"--most={most}", *([] if prompts is None else ["--given"])]
    named = [run_id, reward_model, *(prompts or ())]
    made = worker_process.run_in_child(
        MODULE, *options, "--", *named, home=home, progress=progress, trust=trust, of=run_id
    )
    contests = tuple(PairwiseComparison(**one) for one in made.pop("contests"))
    return WinRate(**made, contests=contests)


def main() -> None:
    """Print the win rate as a line of JSON, or the error: the child process of `win_rate_in_child`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("reward_model")
    parser.add_argument("prompts", nargs=argparse.REMAINDER)  # also one of two dashes
    parser.add_argument("--given", action="store_true")
    parser.add_argument("--tokens", type=int, default=MAX_NEW_TOKENS)
    parser.add_argument("--most", type=int, default=MAX_PROMPTS)
    asked = parser.parse_args()
    worker_process.print_result(
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
