"""Static summary of a run for saved notebooks: a MIME bundle that every host can show without a kernel."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.runs.plain_text import strip_bidi
from llf_core.untrusted import visible
from llf_widgets.home import folder_of, home_hash
from llf_widgets.monitor import formatting
from llf_widgets.monitor.picture import picture
from llf_widgets.monitor.status_text import sentence
from llf_widgets.monitor.table import Summary, summary_html, summary_text
from llf_widgets.monitor.watch import Watch
from llf_widgets.saved_notebook import VIEW

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_widgets.monitor.facts import Facts


def summary_bundle(run: Run | RunFolder | Path | str) -> dict[str, object]:
    """Image, table and text of a run, by MIME type. Read-only.

    Args:
        run: a run, its id or its folder.

    Returns:
        `application/vnd.llf.view+json` (for LLF's own renderer, which shows the run from the Jupyter server),
        `text/html` (everything escaped), `image/png` (base64), `text/plain`.

    Raises:
        FileNotFoundError: the run does not exist.
    """
    watch = Watch(folder_of(run))
    watch.look()
    return bundle(watch)


def bundle(watch: Watch) -> dict[str, object]:
    """The bundle of a run that is being watched, as of the last read."""
    facts, curves = watch.facts, watch.curves()
    run = _summary(watch)
    drawn = picture(curves, facts.reach, title=f"{run.name}, {run.state}", line=run.key_line)
    image = base64.b64encode(drawn).decode("ascii")
    return _texts(watch, replace(run, png=drawn)) | {"image/png": image}


def first_bundle(watch: Watch) -> dict[str, object]:
    """The bundle without the image, whose first drawing takes a second."""
    return _texts(watch, _summary(watch))


def _summary(watch: Watch) -> Summary:
    facts = watch.facts
    return Summary(
        run_id=facts.id,
        name=facts.name or facts.id,
        state=facts.state,
        about=facts.about,
        says=" ".join(filter(None, (sentence(facts), _so_far(facts)))),
        rows=watch.summary(),
        png=b"",
        answers=watch.answers.last(),
        samples=watch.completions.last(),
    )


def _so_far(facts: Facts) -> str:
    """Progress of a run that may have ended since."""
    if not facts.live or not facts.step:
        return ""
    far = f"Step {facts.step:,} of {facts.total:,}" if facts.total else f"Step {facts.step:,}"
    return f"{far} when this was saved, {formatting.clock(facts.heartbeat or facts.created or 0)}."


def _texts(watch: Watch, run: Summary) -> dict[str, object]:
    facts = watch.facts
    home = home_hash(watch.folder.home)
    return {
        VIEW: {"view": "monitor", "run": facts.id, "home": home, "state": facts.state, "step": facts.step},
        "text/html": strip_bidi(summary_html(run)),
        "text/plain": visible(summary_text(run)),
    }
