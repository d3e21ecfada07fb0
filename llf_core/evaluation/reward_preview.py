"""Shows the rewards of completions of the untrained policy of a config.

`python -m llf_core.evaluation.reward_preview FOLDER PROMPTS GROUP_SIZE` is the process that samples and scores them.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.config.registry import stage_of
from llf_core.data.precheck import dataset_problems
from llf_core.evaluation import worker_process
from llf_core.evaluation.errors import EvaluationError, check_whole
from llf_core.launch.start import load_checked_config, write_rows
from llf_core.rewards import REWARDS, reward_sources, unscored_message
from llf_core.rewards.reward_statistics import (
    RewardedCompletion,
    RewardStatistics,
    groups_without_variance,
    reward_statistics,
)
from llf_core.runs.folder import home_folder
from llf_core.runs.formatting import duration, number
from llf_core.user_error import UserError
from llf_core.user_functions.function_source import write_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llf_core.config import RunConfig
    from llf_core.evaluation.worker_process import Progress
    from llf_core.rewards.decorator import RewardFunction

MODULE = "llf_core.evaluation.reward_preview"
PROMPTS, MOST_PROMPTS = 16, 1000
GROUP_SIZE, MOST_COMPLETIONS = 4, 1000
CONFIG, CODE = "config.yaml", "code"
TOTAL = "reward"
"""Name of the sum of all functions, or of a reward model's score."""
EQUAL_GROUPS, TRUNCATED, CORRELATED = 0.5, 0.25, 0.5
"""Shares and rank correlation from which a note says so; chosen by hand."""
NORMAL_95 = 1.96
"""The rank correlation of n independent values has a standard deviation of 1 / sqrt(n - 1)."""


@dataclass(frozen=True)
class RewardPreview:
    """Rewards of completions that the policy samples before its first step.

    Attributes:
        statistics: of each reward function, and of their sum under the name `reward`, which is the last one.
        equal_groups: number of prompts whose completions all have the same reward, from which GRPO and RLOO learn
            nothing.
        groups: number of prompts with at least two completions that have a reward.
        planned_completions: number of completions that the run would sample; None if unknown.
        seconds: seconds that sampling and scoring these would take; None if unknown.
    """

    statistics: tuple[RewardStatistics, ...]
    completions: tuple[RewardedCompletion, ...]
    equal_groups: int
    groups: int
    sampling_seconds: float
    scoring_seconds: float
    planned_completions: int | None
    seconds: float | None
    notes: tuple[str, ...]

    @property
    def forecast(self) -> str:
        """The time that a run spends on sampling and scoring, as a sentence."""
        each = (self.sampling_seconds + self.scoring_seconds) / max(1, len(self.completions))
        speed = f"Sampling and scoring take {each:.2g} s per completion."
        if self.seconds is None or self.planned_completions is None:
            return speed
        return (
            f"{speed} The run samples {self.planned_completions:,}: about {duration(self.seconds)}, and the optimizer "
            "steps come on top."
        )

    def json(self) -> dict[str, object]:
        """Plain values, for `llf try-rewards --json`; values that are not finite are None."""
        return {
            "statistics": [
                {name: _finite(value) if isinstance(value, float) else value for name, value in asdict(one).items()}
                for one in self.statistics
            ],
            "completions": [asdict(one) for one in self.completions],
            "equal_groups": self.equal_groups,
            "groups": self.groups,
            "sampling_seconds": self.sampling_seconds,
            "scoring_seconds": self.scoring_seconds,
            "planned_completions": self.planned_completions,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The statistics, the notes and the forecast of time, for a terminal."""
        head = f"{'Reward':<16}{'Mean':>9}{'Std':>9}{'Lowest':>9}{'Highest':>9}{'ρ length':>10}{'Skipped':>9}"
        lines = [f"{with_unit(len(self.completions), 'completion')} of the untrained model", "", head]
        lines += [
            f"{one.name:<16}{number(one.mean):>9}{number(one.std):>9}{number(one.low):>9}{number(one.high):>9}"
            f"{_correlation(one.length_correlation):>10}{one.skipped:>9}"
            for one in self.statistics
        ]
        return "\n".join([*lines, "", *self.notes, self.forecast])


def try_rewards(  # noqa: PLR0913 - what is tried, and who hears of it
    config: object,
    *,
    rows: object = None,
    rewards: Iterable[RewardFunction | str] | None = None,
    prompts: int = PROMPTS,
    group_size: int | None = None,
    home: Path | str | None = None,
    trust: bool = False,
    progress: Progress = worker_process.no_progress,
) -> RewardPreview:
    """Sample completions with the untrained policy of a config and score them, so that rewards are seen before a run.

    Model, sampling and scores are those of the run's first step. No run is made or changed.

    Args:
        config: a `RunConfig`, or anything `RunConfig.load` accepts, of a stage that samples completions.
        rows: prompts that are not in a file, see `llf_core.launch.launch`. Replaces `dataset`.
        rewards: reward functions, or names of built-in ones. Replaces `reward_functions`; None for those of the config.
        prompts: maximum number of prompts, 1 to 1,000, chosen at random by the run's seed.
        group_size: completions of each prompt, 2 to 1,000; None for `num_generations`, or 4 for `ppo`.
        home: `LLF_HOME`; None for the environment's.
        trust: whether to allow Python code of the model that has not been allowed yet.

    Raises:
        ConfigError: the config has errors, or refers to something this machine does not have; a reward function does
            not exist or cannot be stored.
        EvaluationError: a number is out of range, or the stage samples no completions.
        RowsError: the rows are not a table.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
    """
    functions = None if rewards is None else REWARDS.by_name(rewards)
    root = home_folder(home)
    with tempfile.TemporaryDirectory(prefix="llf-try-rewards-") as place:
        folder = Path(place)
        overrides = [] if functions is None else [f"{REWARDS.key}={json.dumps(list(functions))}"]
        if rows is not None:
            overrides.append(f"dataset={json.dumps([str(write_rows(rows, folder / 'data')[0])])}")
        loaded = load_checked_config(config, overrides, root, None, dataset_problems)
        size = _checked(loaded, prompts, group_size)
        write_code(folder / CODE, reward_sources(loaded, functions))
        (folder / CONFIG).write_text(loaded.yaml(defaults=True), encoding="utf-8")
        batches: list[dict[str, Any]] = []
        worker_process.run_in_child(
            MODULE, place, str(prompts), str(size), home=root, progress=progress, trust=trust, on_item=batches.append
        )
    completions = tuple(RewardedCompletion(**one) for batch in batches for one in batch["completions"])
    sampling, scoring = (sum(batch[name] for batch in batches) for name in ("sampling_seconds", "scoring_seconds"))
    return _preview(loaded, completions, sampling, scoring)


def _checked(config: RunConfig, prompts: int, group_size: int | None) -> int:
    """The number of completions of a prompt."""
    stage = stage_of(config)
    if not stage.uses_rewards:
        raise EvaluationError(
            f"Stage {stage.name} samples no completions, so it has no rewards.", "Take stage grpo, rloo or ppo."
        )
    check_whole("prompts", prompts, 1, MOST_PROMPTS)
    own = config.stage.num_generations if stage.samples_groups else GROUP_SIZE
    size = own if group_size is None else group_size
    check_whole("group_size", size, 2, MOST_COMPLETIONS)  # a spread needs two
    return size


def _preview(
    config: RunConfig, completions: tuple[RewardedCompletion, ...], sampling: float, scoring: float
) -> RewardPreview:
    tokens = [one.tokens for one in completions]
    names = list(dict.fromkeys(name for one in completions for name in one.rewards))
    statistics = [reward_statistics(name, [one.rewards.get(name) for one in completions], tokens) for name in names]
    statistics.append(reward_statistics(TOTAL, [one.reward for one in completions], tokens))
    equal, groups = groups_without_variance(completions)
    planned = _planned_completions(config)
    each = (sampling + scoring) / max(1, len(completions))
    return RewardPreview(
        tuple(statistics),
        completions,
        equal,
        groups,
        sampling,
        scoring,
        planned,
        None if planned is None else planned * each,
        tuple(_notes(config, statistics, completions, (equal, groups), scoring > sampling)),
    )


def _planned_completions(config: RunConfig) -> int | None:
    """Completions that a run samples in one process; None if the number of its steps is unknown."""
    from llf_core.data.text_lengths import estimate

    try:
        found = estimate(config).duration
    except (UserError, OSError):
        return None  # it was loaded in the child process: an estimate does not decide
    if found is None or found.steps is None:
        return None
    training = config.training
    step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return math.ceil(found.steps / stage_of(config).uses_of_completion(config)) * step


def _notes(
    config: RunConfig,
    statistics: Sequence[RewardStatistics],
    completions: Sequence[RewardedCompletion],
    groups: tuple[int, int],
    scoring_slower: bool,
) -> list[str]:
    stage, total = stage_of(config), statistics[-1]
    constant = [one for one in statistics[:-1] or statistics if one.scored and one.low == one.high]
    notes = [
        f"{one.name} is {one.low:g} for all completions, so it cannot teach anything yet. Check the function on "
        "these completions, or take a model or prompts for which some completions succeed."
        for one in constant
    ]
    equal, compared = groups
    if stage.samples_groups and not constant and compared and equal / compared >= EQUAL_GROUPS:
        notes.append(
            f"{equal} of {compared} prompts have the same reward for all of their completions, and nothing is learned "
            "from these: a completion is compared with the others of its prompt. Raise temperature or "
            "num_generations, make the reward finer, or take prompts of medium difficulty."
        )
    notes += [_length_note(one) for one in statistics if _follows_length(one)]
    cut = sum(one.truncated for one in completions)
    if completions and cut / len(completions) >= TRUNCATED:
        notes.append(
            f"{cut} of {len(completions)} completions reach {stage.completion_limit} and are cut off before they end. "
            f"Raise {stage.completion_limit}, or score a short answer higher."
        )
    if total.skipped:
        notes.append(unscored_message(total.skipped, len(completions)))
    if scoring_slower:
        notes.append("Scoring takes longer than sampling. Make the reward functions faster, or the endpoint.")
    return notes


def _follows_length(one: RewardStatistics) -> bool:
    rho = one.length_correlation
    return math.isfinite(rho) and abs(rho) >= CORRELATED and abs(rho) > NORMAL_95 / math.sqrt(max(1, one.scored - 1))


def _length_note(one: RewardStatistics) -> str:
    longer = "longer" if one.length_correlation > 0 else "shorter"
    return (
        f"{one.name} is higher for {longer} completions (rank correlation with the length "
        f"{_correlation(one.length_correlation)}): the model may learn to be {longer} and nothing else."
    )


def _correlation(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "none"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> None:
    """Sample and score completions, and print each batch as a line of JSON: the child process of `try_rewards`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompts", type=int)
    parser.add_argument("group_size", type=int)
    given = parser.parse_args()

    def make(progress: Progress, item: Callable[[object], object]) -> None:
        from llf_core.config import RunConfig
        from llf_core.models.lazy_imports import deferred_imports
        from llf_core.runs import create_run
        from llf_core.stages.base.context import StopTraining

        progress("Loading the model and the prompts", 0, 0)
        config = RunConfig.load(given.folder / CONFIG)
        with deferred_imports(config):
            from llf_core.training.reward_samples import sample_rewards
        code = {path.stem: path.read_text(encoding="utf-8") for path in (given.folder / CODE).glob("*.py")}
        run = create_run(
            config.yaml(defaults=True), "try-rewards", given.folder / "home", lambda new: write_code(new.code, code)
        )
        told, planned, scored = 0.0, 0, 0

        def on_token(done: int, total: int) -> None:
            nonlocal told, planned
            planned = total
            if time.monotonic() - told > 1 / 4:
                told = time.monotonic()
                progress("Sampling completions", done, total)

        try:
            for batch in sample_rewards(config, run, given.prompts, given.group_size, on_token):
                item(asdict(batch))
                scored += len(batch.completions)
                progress("Sampling completions", scored, planned)
        except StopTraining as error:  # its advice is for a run
            raise EvaluationError(error.message, "Correct it, and try the rewards again.") from error

    worker_process.print_result(make)


if __name__ == "__main__":
    main()
