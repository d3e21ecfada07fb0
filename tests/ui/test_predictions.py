"""Predictions after training in the monitor: the phase while they are made, then their file, with a kernel or none."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.runs.folder import RESULT
from llf_core.runs.jsonl import records
from tests.ui.conftest import set_theme
from tests.ui.test_monitor_survives import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser


@pytest.mark.launches
def test_the_monitor_names_the_phase_and_then_the_file(
    page: Any, lab: Lab, real: Callable[..., Any], axe: Callable[..., Any]
) -> None:
    run = real(
        max_steps=4, save_steps=4, do_predict=True, do_train=True, max_new_tokens=200, watched_prompts=None,
        per_device_eval_batch_size=1, metrics="rouge",
    )  # fmt: skip
    lab.notebook("predictions.ipynb", f"import llf_widgets as llf\nllf.Monitor({run.id!r})")
    lab.open(page, "predictions.ipynb")
    lab.run_cell(page, 0)
    head = page.locator(".llf-Monitor .llf-Head")
    until = time.monotonic() + 240
    while not any(event["type"] == "phase" and event["name"] == "predictions" for event in run.events()):
        assert time.monotonic() < until
        page.wait_for_timeout(20)
    trainer = json.loads(run.folder.status.read_text())["pid"]
    os.kill(trainer, signal.SIGSTOP)  # the phase lasts until the page has shown it
    expect(head).to_contain_text(re.compile(r"(Loading it to answer|Answering) the evaluation data"), timeout=120_000)
    os.kill(trainer, signal.SIGCONT)
    expect(head.locator(".llf-State")).to_have_text("finished", timeout=120_000)
    line = head.get_by_text("The predictions of 8 records are in ")
    expect(line).to_contain_text(f"{run.id}/predictions/{RESULT}, their metrics in predict_results.json beside it.")
    assert len(list(records(run.folder.predictions / RESULT))) == 8
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        set_theme(page, theme)
        assert axe(page, ".llf-Monitor") == []
    lab.save(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    lab.settle(page)
    expect(line).to_be_visible(timeout=120_000)
    page.evaluate(f"() => {SESSION}.shutdown().then(() => null)")
    expect(page.locator(".jp-Notebook")).to_be_visible()
    expect(line).to_be_visible()
