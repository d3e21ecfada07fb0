"""`llf.find_learning_rate(config)`: a learning rate from short branches, with the curve of their losses."""

from __future__ import annotations

import base64
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

from llf_core.evaluation.learning_rate_search import STEPS, LearningRateSearch
from llf_core.evaluation.learning_rate_search import find_learning_rate as search
from llf_core.runs.formatting import rate
from llf_widgets.cell_output import ProgressLine, plain_table
from llf_widgets.plotting.image import GRAY, new_figure, plain_axes, to_png
from llf_widgets.plotting.plotly_layout import BAD, EVALUATION, TRAINING, to_hex
from llf_widgets.start import split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llf_core.config import RunConfig

SIZE, DPI = (6.2, 3.0), 120


class DisplayedLearningRateSearch(LearningRateSearch):
    """A `LearningRateSearch` whose display is the proposal, the curve and a table."""

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        said = "No proposal" if self.learning_rate is None else f"Learning rate {rate(self.learning_rate)}"
        picture = base64.b64encode(_curve_png(self)).decode("ascii")
        return (
            f"<p><b>{said}</b><br>{escape(self.reason)}</p>"
            f'<img alt="Loss by learning rate" width="{SIZE[0] * 96:.0f}" src="data:image/png;base64,{picture}">'
            f"{plain_table(('Learning rate', 'Loss', 'Change'), self._rows())}"
            f"<p>{'<br>'.join(map(escape, self.notes))}</p>"
        )

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = [("untrained", f"{self.untrained:.4f}", "")]
        for one in self.branches:
            mark = " (proposed)" if one.rate == self.learning_rate else ""
            told = (
                (f"diverged at step {len(one.losses)}", "")
                if one.diverged
                else (f"{one.loss:.4f}", f"{one.change:+.4f}")
            )
            rows.append((rate(one.rate) + mark, *told))
        return rows


def find_learning_rate(
    config: RunConfig | dict[str, Any] | str | Path,
    *,
    rates: Sequence[float] | None = None,
    steps: int = STEPS,
    trust: bool = False,
) -> DisplayedLearningRateSearch:
    """Propose a learning rate from short branches of a config, each with another rate, from the weights of step 0.

    The model is loaded once, in a child process, which ends if the cell is interrupted. The branches use the trainer,
    the loss, the optimizer, the method and the data of a run, on the same batches. No run is made or changed.

    Args:
        rates: at least two learning rates above 0, in any order; None for 8 from 1e-6 upwards, for adapters from 1e-5,
            as 1, 3, 10, 30 and so on.
        steps: maximum number of steps of each branch, 10 to 1000.
        trust: whether to allow Python code that comes with the model, permanently.

    Returns:
        The proposed `.learning_rate` with its `.reason`, and the losses of each of the `.branches`; displayed as a
        curve. The proposal is the smallest rate whose loss is no worse than the lowest one within a standard error;
        None if no rate lowers the loss measurably.

    Raises:
        ConfigError: the config has errors, or refers to something this machine does not have, or the first records of a
            data set match no format.
        EvaluationError: rates or steps are not numbers or out of range, or the loss of the stage does not say whether a
            rate is good.
        RowsError: the rows are not a table, or Parquet cannot hold one of their values.
        UntrustedCodeError: code would run that you have not allowed.

    Source:
        Learning rate range test: Smith, arXiv 1506.01186, section 3.3. One-standard-error rule: Breiman, Friedman,
        Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3.

    Example:
        >>> config = {"dataset": "llf_demo", "finetuning_type": "lora"}
        >>> found = llf.find_learning_rate(config)  # doctest: +SKIP
        >>> llf.train(config | {"learning_rate": found.learning_rate})  # doctest: +SKIP
    """
    config, rows = split_rows(config)
    with ProgressLine() as line:
        found = search(config, rows=rows, rates=rates, steps=steps, trust=trust, say=_say, progress=line)
    return DisplayedLearningRateSearch(**{one.name: getattr(found, one.name) for one in fields(found)})


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - the cell's progress


def _curve_png(found: LearningRateSearch) -> bytes:
    """Draw the loss by learning rate as a PNG, with the proposed rate marked and crosses for rates that diverged."""
    figure = new_figure(*SIZE, DPI)
    axes = figure.subplots()
    usable = [one for one in found.branches if not one.diverged]
    if usable:
        axes.axhline(found.untrained, color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            [one.rate for one in usable], [one.loss for one in usable], "o-", color=to_hex(TRAINING), markersize=4
        )
    for one in usable:
        if one.rate == found.learning_rate:
            axes.plot([one.rate], [one.loss], "o", color=to_hex(EVALUATION), markersize=8, fillstyle="none")
            axes.annotate(
                rate(one.rate), (one.rate, one.loss), xytext=(0, 9), textcoords="offset points", ha="center",
                color=to_hex(EVALUATION), fontsize=9, parse_math=False,
            )  # fmt: skip
    top = axes.get_ylim()[1]
    gone = [one.rate for one in found.branches if one.diverged]
    axes.plot(gone, [top] * len(gone), "x", color=to_hex(BAD), clip_on=False)
    axes.set_xscale("log")
    plain_axes(axes, f"Loss after {found.steps} steps (dashed: untrained; crosses: diverged)")
    axes.set_xlabel("Learning rate", fontsize=8, color=GRAY)
    figure.subplots_adjust(left=0.09, right=0.97, top=0.88, bottom=0.17)
    return to_png(figure)
