"""Proposes a learning rate from short branches of a config from step 0, before a run is started.

`python -m llf_core.evaluation.learning_rate_search FOLDER RATES STEPS` is the process that trains them.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from llf_core.config.number_format import with_unit
from llf_core.config.registry import method_of, stage_of
from llf_core.data.precheck import dataset_problems
from llf_core.evaluation import worker_process
from llf_core.evaluation.errors import EvaluationError, check_whole
from llf_core.launch.start import load_checked_config, write_rows
from llf_core.runs.folder import home_folder
from llf_core.runs.formatting import duration, number, rate
from llf_core.training.learning_rate_rule import Branch, propose
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.config import RunConfig
    from llf_core.evaluation.worker_process import Progress

MODULE = "llf_core.evaluation.learning_rate_search"
STEPS, FEWEST_STEPS, MOST_STEPS = 30, 10, 1000
LOWEST_OF_ADAPTERS, LOWEST = 1e-5, 1e-6
RATES = 8
"""Number of rates, in half decades from the lowest; chosen by hand, to reach beyond usual rates."""
CONFIG = "config.yaml"


class _BranchItem(TypedDict):
    """A branch, printed by the child process; losses that are not finite are None."""

    rate: float
    losses: list[float | None]
    untrained: list[float]


@dataclass(frozen=True)
class LearningRateSearch:
    """Result of short branches with several learning rates.

    Attributes:
        learning_rate: the proposed learning rate; None if there is none, which `reason` explains.
        notes: source of the rule and caveats, a sentence each.
        forecast: expected seconds of all steps, forecast before the start; None if unknown.
    """

    learning_rate: float | None
    reason: str
    notes: tuple[str, ...]
    branches: tuple[Branch, ...]
    steps: int
    forecast: float | None
    seconds: float

    @property
    def untrained(self) -> float:
        """Mean loss of the untrained model on the batches of the branches; NaN if all diverged."""
        whole = next((one for one in self.branches if not one.diverged), None)
        return math.nan if whole is None else whole.loss - whole.change

    def json(self) -> dict[str, object]:
        """Plain values, for `llf find-learning-rate --json`; losses that are not finite are None."""
        return {
            "learning_rate": self.learning_rate,
            "reason": self.reason,
            "notes": list(self.notes),
            "steps": self.steps,
            "untrained_loss": _finite(self.untrained),
            "branches": [
                {
                    "learning_rate": one.rate,
                    "loss": _finite(one.loss),
                    "diverged": one.diverged,
                    "losses": [_finite(loss) for loss in one.losses],
                }
                for one in self.branches
            ],
            "forecast_seconds": self.forecast,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """The proposal and the loss of each rate, for a terminal."""
        said = "no proposal" if self.learning_rate is None else rate(self.learning_rate)
        lines = [f"Learning rate: {said}", self.reason, "", f"{'Rate':<10}{'Loss':>9}{'Change':>9}"]
        lines.append(f"{'untrained':<10}{number(self.untrained):>9}")
        for one in self.branches:
            mark = "  proposed" if one.rate == self.learning_rate else ""
            told = f"diverged at step {len(one.losses)}" if one.diverged else f"{one.loss:>9.4f}{one.change:>+9.4f}"
            lines.append(f"{rate(one.rate):<10}{'  ' if one.diverged else ''}{told}{mark}")
        return "\n".join([*lines, "", *self.notes])


def find_learning_rate(  # noqa: PLR0913 - what is tried, and who hears of it
    config: object,
    *,
    rows: object = None,
    rates: Sequence[float] | None = None,
    steps: int = STEPS,
    home: Path | str | None = None,
    trust: bool = False,
    say: Callable[[str], object] | None = None,
    progress: Progress = worker_process.no_progress,
) -> LearningRateSearch:
    """Propose a learning rate from short branches, each with another rate, from the weights of step 0.

    The model is loaded once, in a child process. The branches use the trainer, the loss, the optimizer, the method and
    the data of a run, on the same batches. No run is made or changed.

    Args:
        config: a `RunConfig`, or anything `RunConfig.load` accepts.
        rows: training data that is not in a file, see `llf_core.launch.launch`. Replaces `dataset`.
        rates: at least two learning rates, in any order; None for 8 from 1e-6 upwards, for adapters from 1e-5, as 1, 3,
            10, 30 and so on.
        steps: maximum number of steps of each branch, 10 to 1000.
        home: `LLF_HOME`; None for the environment's.
        trust: whether to allow Python code of the model that has not been allowed yet.
        say: called with the forecast of the time, as a sentence, before anything is loaded; None if nobody listens.

    Raises:
        ConfigError: the config has errors, or refers to something this machine does not have.
        EvaluationError: rates or steps are out of range, or the loss of the stage does not say whether a rate is good.
        RowsError: the rows are not a table.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
    """
    root = home_folder(home)
    with tempfile.TemporaryDirectory(prefix="llf-learning-rate-") as place:
        folder = Path(place)
        overrides = [] if rows is None else [f"dataset={json.dumps([str(write_rows(rows, folder / 'data')[0])])}"]
        loaded = load_checked_config(config, overrides, root, None, dataset_problems)
        _check_stage(loaded)
        tried = _rates(loaded) if rates is None else _checked_rates(rates)
        check_whole("steps", steps, FEWEST_STEPS, MOST_STEPS)
        forecast = _forecast(loaded, len(tried), steps)
        if say is not None:
            took = "The time is unknown" if forecast is None else f"About {duration(forecast)} after loading"
            say(f"{took}: {with_unit(len(tried), 'learning rate')} and the untrained model, {steps} steps each.")
        began = time.monotonic()
        (folder / CONFIG).write_text(loaded.yaml(defaults=True), encoding="utf-8")
        branches: list[Branch] = []
        worker_process.run_in_child(
            MODULE,
            place,
            json.dumps(tried),
            str(steps),
            home=root,
            progress=progress,
            trust=trust,
            on_item=lambda item: branches.append(_read(item)),
        )
    found = propose(branches)
    return LearningRateSearch(
        found.rate, found.reason, found.notes, tuple(branches), steps, forecast, time.monotonic() - began
    )


def _check_stage(config: RunConfig) -> None:
    if stage_of(config).loss_kind == "reward":
        raise EvaluationError(
            f"The loss of stage {config.get('stage')} does not fall while the model learns, so it cannot tell which "
            "learning rate is good.",
            "Compare the rewards of short runs instead: llf.sweep(config, {'learning_rate': [...]}).",
        )


def _rates(config: RunConfig) -> list[float]:
    """Half decades: 1, 3, 10, 30 and so on."""
    lowest = round(math.log10(LOWEST_OF_ADAPTERS if method_of(config).adapter else LOWEST))
    return [float(f"{'13'[place % 2]}e{lowest + place // 2}") for place in range(RATES)]


def _checked_rates(given: Sequence[float]) -> list[float]:
    try:
        rates = sorted({float(one) for one in given})
    except (TypeError, ValueError, OverflowError):
        raise EvaluationError(f"The learning rates are {str(given)[:80]}. Expected numbers above 0.") from None
    for one in rates:
        if not 0 < one < math.inf:
            raise EvaluationError(f"A learning rate is {one:g}. Expected numbers above 0.")
    if len(rates) < 2:  # noqa: PLR2004 - a comparison needs two
        raise EvaluationError(f"There are {len(rates)} different learning rates. Expected at least 2.")
    return rates


def _forecast(config: RunConfig, rates: int, steps: int) -> float | None:
    """Seconds of all steps if no branch diverges; None if the time of a step is unknown."""
    from llf_core.data.text_lengths import estimate

    try:
        found = estimate(config).duration
    except (UserError, OSError):
        return None  # the child process reports what is wrong
    return None if found is None else found.step_seconds * steps * (rates + 1)


def _read(item: _BranchItem) -> Branch:
    """A branch from JSON, where None stands for a loss that is not finite."""
    losses = tuple(math.nan if loss is None else loss for loss in item["losses"])
    return Branch(item["rate"], losses, tuple(item["untrained"]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> None:
    """Train the branches, and print each as a line of JSON: the child process of `find_learning_rate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rates", type=json.loads)
    parser.add_argument("steps", type=int)
    asked = parser.parse_args()

    def make(progress: Progress, item: Callable[[object], object]) -> None:
        from llf_core.config import RunConfig
        from llf_core.models.lazy_imports import deferred_imports

        progress("Loading the model and the data", 0, 0)
        config = RunConfig.load(asked.folder / CONFIG)
        with deferred_imports(config):
            from llf_core.training.learning_rate_branches import train_branches
        total = asked.steps * (len(asked.rates) + 1)
        begun: list[float] = []
        times: list[float] = []

        def on_step(tried: float, step: int) -> None:
            times.append(time.monotonic())
            if tried not in begun:
                begun.append(tried)
            done = (len(begun) - 1) * asked.steps + step
            what = f"Learning rate {rate(tried)}" if tried else "Untrained model"
            if len(times) > FEWEST_STEPS:
                seconds = (times[-1] - times[0]) / (len(times) - 1)
                what += f", at most {duration(seconds * (total - done))} left"
            progress(what, done, total)

        for one in train_branches(config, asked.folder / "home", asked.rates, asked.steps, on_step):
            losses = [_finite(loss) for loss in one.losses]
            item({"rate": one.rate, "losses": losses, "untrained": list(one.untrained)})

    worker_process.print_result(make)


if __name__ == "__main__":
    main()
