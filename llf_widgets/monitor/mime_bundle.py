"""Static summary of a run for saved notebooks: a MIME bundle that every host can show without a kernel."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.runs.plain_text import strip_bidi
from llf_core.untrusted import visible
from llf_widgets.home import home_hash, run_folder
from llf_widgets.monitor import formatting
from llf_widgets.monitor.run_tracker import RunTracker
from llf_widgets.monitor.saved_image import saved_image
from llf_widgets.monitor.status_text import predictions_text, status_text
from llf_widgets.monitor.summary_table import Summary, summary_html, summary_text
from llf_widgets.view_mime_type import VIEW_MIME_TYPE

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_widgets.monitor.snapshot import RunSnapshot


def summary_bundle(run: Run | RunFolder | Path | str) -> dict[str, object]:
    """A run for reports and notebooks, by MIME type: LLF's own, `text/html`, `image/png` (base64), `text/plain`."""
    tracker = RunTracker(run_folder(run))
    tracker.refresh()
    return mime_bundle(tracker)


def mime_bundle(tracker: RunTracker) -> dict[str, object]:
    """The bundle of a tracked run, as of the last read. Drawing the image takes about a second."""
    run = _summary(tracker)
    drawn = saved_image(
        tracker.chart_data(), tracker.snapshot.last_step, title=f"{run.name}, {run.state}", line=run.key_line
    )
    image = base64.b64encode(drawn).decode("ascii")
    return _texts(tracker, replace(run, png=drawn)) | {"image/png": image}


def text_bundle(tracker: RunTracker) -> dict[str, object]:
    """The bundle without the image, whose first drawing takes a second."""
    return _texts(tracker, _summary(tracker))


def _summary(tracker: RunTracker) -> Summary:
    snapshot = tracker.snapshot
    return Summary(
        run_id=snapshot.id,
        name=snapshot.name or snapshot.id,
        state=snapshot.state,
        description=snapshot.description,
        status_text=" ".join(
            filter(None, (status_text(snapshot), predictions_text(snapshot), _progress_when_saved(snapshot)))
        ),
        rows=tracker.summary(),
        png=b"",
        answers=tracker.answers.last(),
        samples=tracker.completions.last(),
    )


def _progress_when_saved(snapshot: RunSnapshot) -> str:
    """Progress of a run that may have ended since."""
    if not snapshot.live or not snapshot.step:
        return ""
    progress = f"Step {snapshot.step:,} of {snapshot.total:,}" if snapshot.total else f"Step {snapshot.step:,}"
    return f"{progress} when this was saved, {formatting.clock(snapshot.heartbeat or snapshot.created or 0)}."


def _texts(tracker: RunTracker, run: Summary) -> dict[str, object]:
    snapshot = tracker.snapshot
    home = home_hash(tracker.folder.home)
    return {
        VIEW_MIME_TYPE: {
            "view": "monitor",
            "run": snapshot.id,
            "home": home,
            "state": snapshot.state,
            "step": snapshot.step,
        },
        "text/html": strip_bidi(summary_html(run)),
        "text/plain": visible(summary_text(run)),
    }
