"""`llf.try_rewards(config)`: rewards of completions of the untrained model, as a histogram for each function."""

from __future__ import annotations

import base64
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.evaluation.reward_preview import PROMPTS, RewardPreview
from llf_core.evaluation.reward_preview import try_rewards as preview
from llf_core.runs.formatting import number
from llf_widgets.cell_output import ProgressLine, plain_table
from llf_widgets.plotting.image import new_figure, plain_axes, to_png
from llf_widgets.plotting.plotly_layout import TRAINING, to_hex
from llf_widgets.start import split_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.rewards.reward_statistics import RewardStatistics

WIDTH, HEIGHT, DPI, IN_ROW = 2.6, 1.7, 120, 3
EXAMPLES = 3
"""Completions shown from each end."""


class DisplayedRewardPreview(RewardPreview):
    """A `RewardPreview` with histograms and tables as its display. Model text is escaped, never interpreted as HTML."""

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        picture = base64.b64encode(_histograms_png(self.statistics)).decode("ascii")
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        width = WIDTH * min(IN_ROW, len(self.statistics)) * 96
        return (
            f"<p><b>{len(self.completions)} completions of the untrained model</b><br>{escape(self.forecast)}</p>"
            + (f"<ul>{notes}</ul>" if notes else "")
            + f'<img alt="{escape(self._described())}" width="{width:.0f}" src="data:image/png;base64,{picture}">'
            + plain_table(("Reward", "Mean", "Std", "Lowest", "Highest", "Follows length", "Skipped"), self._rows())
            + "<p><b>Highest and lowest rewards</b></p>"
            + plain_table(("Reward", *self._functions(), "Prompt", "Completion"), self._examples())
        )

    def _described(self) -> str:
        told = [f"{one.name} from {number(one.low)} to {number(one.high)}" for one in self.statistics]
        return f"Histograms of rewards: {', '.join(told)}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                one.name, number(one.mean), number(one.std), number(one.low), number(one.high),
                "" if one.length_correlation != one.length_correlation else f"{one.length_correlation:+.2f}",
                str(one.skipped) if one.skipped else "",
            )
            for one in self.statistics
        ]  # fmt: skip

    def _examples(self) -> list[tuple[str, ...]]:
        ranked = sorted(
            (one for one in self.completions if one.reward is not None), key=lambda one: one.reward or 0.0, reverse=True
        )
        shown = ranked if len(ranked) <= 2 * EXAMPLES else [*ranked[:EXAMPLES], *ranked[-EXAMPLES:]]
        names = self._functions()
        return [
            (_value(one.reward), *(_value(one.rewards.get(name)) for name in names), one.prompt, one.text)
            for one in shown
        ]

    def _functions(self) -> list[str]:
        """Names of the functions; none where there is one alone, whose values are the rewards."""
        names = [one.name for one in self.statistics[:-1]]
        return names if len(names) > 1 else []


def _value(reward: float | None) -> str:
    return "none" if reward is None else number(reward)


def try_rewards(
    config: RunConfig | dict[str, Any] | str | Path,
    *,
    rewards: Iterable[Any] | None = None,
    prompts: int = PROMPTS,
    group_size: int | None = None,
    trust: bool = False,
) -> DisplayedRewardPreview:
    """Sample completions with the untrained model of a config and score them, before hours are spent on a run.

    It shows the spread of each reward function, prompts from which nothing can be learned, rewards that follow the
    length, and the time that sampling will take. The model runs in a child process, which ends if the cell is
    interrupted. No run is made or changed.

    Args:
        config: as for `train`, of stage `grpo`, `rloo` or `ppo`.
        rewards: as for `train`; None for those of the config.
        prompts: maximum number of prompts, 1 to 1,000, chosen at random by the run's seed.
        group_size: completions of each prompt, 2 to 1,000; None for `num_generations`, or 4 for `ppo`.
        trust: whether to allow Python code that comes with the model, permanently.

    Returns:
        `.statistics` of each function and of their sum (mean, standard deviation, range, and Spearman's rank
        correlation with the length in tokens), `.completions` with their rewards, and `.notes`; displayed as
        histograms.

    Raises:
        ConfigError: the config has errors, or refers to something this machine does not have, or the first records of a
            data set match no format; a reward function does not exist or cannot be stored.
        EvaluationError: a number is not an integer or out of range, or the stage samples no completions.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.
        UntrustedCodeError: code would run that you have not allowed.

    Source:
        Rank correlation: Spearman, The proof and measurement of association between two things, 1904.

    Example:
        >>> llf.try_rewards(config, rewards=[brief, "correct"])  # doctest: +SKIP
    """
    config, rows = split_rows(config)
    with ProgressLine() as line:
        found = preview(
            config, rows=rows, rewards=rewards, prompts=prompts, group_size=group_size, trust=trust, progress=line
        )
    return DisplayedRewardPreview(**{one.name: getattr(found, one.name) for one in fields(found)})


def _histograms_png(statistics: tuple[RewardStatistics, ...]) -> bytes:
    lines = -(-len(statistics) // IN_ROW)
    columns = min(IN_ROW, len(statistics))
    figure = new_figure(WIDTH * columns, HEIGHT * lines, DPI)
    for place, one in enumerate(statistics):
        axes = figure.add_subplot(lines, columns, place + 1)
        if one.counts:
            starts, width = one.edges[:-1], one.edges[1] - one.edges[0]
            axes.bar(starts, one.counts, width=width, align="edge", color=to_hex(TRAINING), edgecolor="white")
        plain_axes(axes, one.name)
    figure.tight_layout()
    return to_png(figure)
