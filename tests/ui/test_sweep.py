"""A sweep from the form to the comparison, with a real trainer; and the queue where something goes already."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.launch import launch
from llf_core.runs import list_runs
from tests.ui.conftest import set_theme
from tests.ui.test_steering import picture
from tests.ui.test_studio import open_studio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = [pytest.mark.browser, pytest.mark.launches]


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


CURVES = (
    "() => { const plot = document.querySelector('.llf-Compare .js-plotly-plot');"
    " const training = plot?.layout.meta.charts.find(({title}) => title === 'Training loss')?.x;"
    " return plot?.data.filter(line => line.xaxis === training && line.mode === 'lines').map(line => line.y.length); }"
)


@pytest.fixture
def settings(tiny_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "val_size": 8,
        "per_device_train_batch_size": 4, "max_steps": 12, "logging_steps": 1, "eval_strategy": "steps",
        "eval_steps": 4, "save_strategy": "no", "learning_rate": 1e-3, "threads": 1,
    }  # fmt: skip


@pytest.fixture
def busy(lab: Lab, settings: dict[str, Any], warm_python: Path) -> Iterator[Any]:
    """A run that goes on this machine until it is told to stop."""
    more = {"max_steps": 1_000_000, "eval_strategy": "no", "lr_scheduler_type": "constant"}
    run = launch(settings | more, name="goes already", home=lab.home)
    yield run
    if not run.status().has_ended:
        run.kill()
    run.wait(30, progress=False)


def cell(settings: dict[str, Any]) -> str:
    return f"import llf_widgets as llf\nstudio = llf.Studio({settings!r})\nstudio"


def test_two_values_become_two_runs_and_a_comparison(page: Any, lab: Lab, settings: dict[str, Any], axe: Any) -> None:
    form = open_studio(page, lab, "sweep.ipynb", cell(settings))
    expect(form.get_by_role("button", name="Add to queue")).to_be_hidden()
    toggle = form.get_by_role("button", name="Sweep over several values…")
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-expanded", "true")
    sweep = form.get_by_role("region", name="Sweep", exact=True)
    values = sweep.get_by_label("Values of Learning rate")
    expect(values).to_have_value("3.3e-4, 1e-3, 3e-3")
    expect(sweep).to_contain_text("3 runs, one after the other.")
    page.keyboard.press("Tab")
    expect(sweep.get_by_label("Field", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(values).to_be_focused()

    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("1e-3, fast")
    expect(sweep.get_by_role("alert")).to_contain_text("Learning rate (learning_rate) is 'fast'. Expected a number")
    expect(sweep.get_by_role("button", name="Start 2 runs")).to_be_disabled()
    expect(values).to_have_value("1e-3, fast")
    sweep.get_by_role("button", name="Combine with another field").click()
    expect(sweep.get_by_label("Field 2")).to_be_focused()
    sweep.get_by_label("Field 2").select_option("lora_rank")
    picture(form, "sweep-error-light")
    sweep.get_by_role("button", name="Remove LoRA rank").click()
    expect(sweep.get_by_label("Field 2")).to_have_count(0)
    values.fill("1e-3, 1e-2")
    expect(sweep.get_by_role("alert")).to_have_count(0)
    form.get_by_label("Name", exact=True).fill("tune")
    sweep.get_by_role("button", name="Start 2 runs").dblclick()
    expect(sweep).to_contain_text("Started 2 runs", timeout=120_000)

    lines = form.get_by_role("table", name="Runs of the sweep")
    expect(lines.get_by_role("row")).to_have_count(3)
    expect(lines).to_be_in_viewport(timeout=120_000)
    expect(lines.get_by_text("finished")).to_have_count(2, timeout=120_000)
    expect(form.get_by_text("2 of 2 runs finished")).to_be_visible()
    page.wait_for_function(f"() => JSON.stringify(({CURVES})()) === '[12,12]'", timeout=120_000)
    sides = form.get_by_role("table", name="Runs side by side")
    expect(sides.get_by_role("row", name="learning_rate 1e-3 0.01")).to_be_visible()
    assert sorted(row.name for row in list_runs(lab.home, query="tune").rows) == [
        "tune learning_rate=0.01", "tune learning_rate=1e-3",
    ]  # fmt: skip
    picture(form, "sweep-light")
    assert axe(page, ".llf-Studio") == []
    set_theme(page, "JupyterLab Dark")
    picture(form, "sweep-dark")
    assert axe(page, ".llf-Studio") == []
    set_theme(page, "JupyterLab Light")

    form.get_by_role("button", name="Monitor of learning_rate 0.01").click()
    expect(form.locator(".llf-Monitor")).to_contain_text("tune learning_rate=0.01", timeout=120_000)
    lab.save(page)
    page.goto(lab.address("sweep.ipynb").replace("&reset", ""))
    page.wait_for_function(f"() => JSON.stringify(({CURVES})()) === '[12,12]'", timeout=120_000)


def test_queue_says_what_it_waits_for_and_a_sweep_is_taken_out_of_it(
    page: Any, lab: Lab, settings: dict[str, Any], busy: Any
) -> None:
    form = open_studio(page, lab, "queue.ipynb", cell(settings))
    start = form.get_by_role("region", name="Start", exact=True)
    expect(start).to_contain_text("Another run uses this device: goes already", timeout=120_000)
    expect(start).to_contain_text("If queued, this run starts after it.")
    form.get_by_label("Name", exact=True).fill("waits")
    start.get_by_role("button", name="Add to queue").click()
    expect(start).to_contain_text("is in the queue", timeout=120_000)
    expect(form.locator(".llf-Monitor")).to_contain_text(re.compile("Waiting for goes already"), timeout=120_000)

    form.get_by_role("button", name="Sweep over several values…").click()
    sweep = form.get_by_role("region", name="Sweep", exact=True)
    expect(sweep).to_contain_text("They start after goes already")
    picture(form, "queue-light")
    set_theme(page, "JupyterLab Dark")
    picture(form, "queue-dark")
    set_theme(page, "JupyterLab Light")
    sweep.get_by_role("button", name="Start 3 runs").click()
    lines = form.get_by_role("table", name="Runs of the sweep")
    expect(lines.get_by_text("queued")).to_have_count(3, timeout=120_000)
    form.get_by_role("button", name="Stop sweep").click()
    expect(lines.get_by_text("stopped")).to_have_count(3, timeout=120_000)
    form.get_by_role("button", name="Remove from queue").click()
    expect(form.locator(".llf-Monitor .llf-State").first).to_have_text("stopped", timeout=120_000)
