"""How the panel looks: accessible in both themes, and nothing cut in a narrow one with many long names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core import runs
from tests.ui.conftest import set_theme
from tests.ui.test_panel import PANEL, menu, open_panel, picture, show_panel
from tests.ui.test_panel_faults import EVIL, NAMES, SEEN, STICKS_OUT, made, no_other_runs, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ui.conftest import Lab

__all__ = ["made", "no_other_runs"]  # fixtures
pytestmark = pytest.mark.browser

# Controls and words that are cut: wider than their box, where no ellipsis and no scrolling says so.
CUT = """
selector => [...document.querySelectorAll(`${selector} :is(button, label, option, h3, h4, p, dt, dd, b, code)`)]
  .filter(e => e.offsetParent && !e.matches('[data-run], .llf-ellipsis') && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).display !== 'inline')
  .map(e => `${e.tagName} ${e.textContent.slice(0, 40)}: ${e.scrollWidth} in ${e.clientWidth}`)
"""
# A choice whose longest word does not fit: its text is drawn by the browser and is in no box of its own.
SELECTS = """
selector => {
  const canvas = document.createElement('canvas').getContext('2d');
  return [...document.querySelectorAll(`${selector} select`)].flatMap(select => {
    const style = getComputedStyle(select);
    canvas.font = style.font;
    const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return [...select.options].filter(option => canvas.measureText(option.textContent).width > room)
      .map(option => `${option.textContent}: ${canvas.measureText(option.textContent).width} in ${room}`);
  });
}
"""


def narrow(page: Any, width: int) -> None:
    """Makes the left sidebar so wide, as dragging its edge does."""
    page.evaluate(
        "width => { const panel = document.querySelector('#jp-left-stack').parentElement;"
        " const split = document.querySelector('#jp-main-split-panel');"
        " const layout = window.jupyterapp.shell._hsplitPanel;"
        " const all = split.clientWidth; layout.setRelativeSizes([width, all - width, 0]); }",
        width,
    )
    page.wait_for_function(
        "([s, width]) => Math.abs(document.querySelector(s).clientWidth - width) < 24", arg=[PANEL, width], timeout=SEEN
    )


@pytest.fixture
def full(made: Callable[..., runs.RunFolder]) -> dict[str, runs.RunFolder]:
    """One run in every state, with all that details show."""
    folders = {
        "live": made("live", live=True, step=3, total=9, step_seconds=20.0),
        "failed": made("failed", state="failed", step=3, total=9, reason="Out of memory on the GPU. " * 5),
        "finished": made("finished", state="finished", step=9, total=9),
        "created": made("created", state="created"),
    }
    for folder in folders.values():
        writer = runs.RunWriter(folder)
        for step in (1, 2, 3):
            writer.metric(step, {"loss": 1.0 / step, "eval_loss": 2.0 / step, "rewards/accuracies": 0.5})
        writer.event("warning", message="Watch out.")
        writer.event("finding", message="The loss rises.", fix="Lower the learning rate.")
        writer.sample(step=2, kind="answer", prompt="Hi?", text="Yo.", of="tuned")
        folder.log.write_text("a line\n" * 9)
        runs.update_meta(folder, tags=["best", "faq"], note="A note.")
        folder.env.write_text('{"device": {"name": "CPU"}, "packages": {"torch": "2.9"}}')
        path = runs.Checkpoints(folder).path(2)
        path.mkdir(parents=True)
        (path / "model").write_bytes(b"x")
        runs.Checkpoints(folder).finish(2)
    folders["finished"].output.mkdir()
    (folders["finished"].output / "adapter_config.json").write_text('{"r": 8}')
    return folders


def of_ours(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of a whole page's violations is in the panel: some rules compare it with the rest of the page."""
    where = {one["id"]: [place for place in one["where"] if "llf-" in place] for one in found}
    return [one | {"where": where[one["id"]]} for one in found if where[one["id"]]]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_in_any_view(
    page: Any, lab: Lab, full: dict[str, runs.RunFolder], axe: Callable[..., Any], theme: str
) -> None:
    panel = open_panel(page, lab)
    set_theme(page, theme)
    dark = theme.endswith("Dark")
    expect(row_of(panel, full["finished"])).to_be_visible(timeout=SEEN)
    expect(panel.get_by_role("region", name="Adapters")).to_be_visible(timeout=SEEN)
    found = {"list": axe(page, PANEL), "list beside JupyterLab's own": of_ours(axe(page, "body"))}
    picture(page, f"list-{'dark' if dark else 'light'}")
    panel.get_by_role("combobox", name="Group by").select_option("model")
    found["groups"] = axe(page, PANEL)
    for kind in ("failed", "finished"):
        row_of(panel, full[kind]).click(modifiers=["Control"])
    expect(panel.get_by_text("2 selected")).to_be_visible(timeout=SEEN)
    found["two chosen"] = axe(page, PANEL)
    menu(page, row_of(panel, full["failed"]), "Edit tags of 2 runs…")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("No tags to add or remove.", timeout=SEEN)
    found["form"] = axe(page, ".jp-Dialog-content")
    picture(page, f"form-{'dark' if dark else 'light'}")
    page.keyboard.press("Escape")
    for kind, folder in full.items():
        row_of(panel, folder).click()
        expect(panel.get_by_role("article", name=kind)).to_be_visible(timeout=SEEN)
        expect(panel.get_by_role("region", name="Checkpoints")).to_be_visible()
        found[kind] = axe(page, PANEL)
        picture(page, f"details-{kind}-{'dark' if dark else 'light'}")
        panel.get_by_role("button", name="Runs", exact=True).click()
    row_of(panel, full["finished"]).focus()
    page.keyboard.press("Delete")
    moved = page.locator(".Toastify__toast").filter(has_text="moved to the bin")  # beside others, if a run was lost
    expect(moved).to_be_in_viewport(ratio=1, timeout=SEEN)
    panel.get_by_role("button", name="Bin:").click(timeout=SEEN)
    expect(panel.locator("[data-binned]").first).to_be_visible(timeout=SEEN)
    found["bin"] = axe(page, PANEL)
    page.keyboard.press("Escape")
    panel.get_by_role("textbox", name="Search runs").fill("nothing like it")
    expect(panel.get_by_text("No runs match")).to_be_visible(timeout=SEEN)
    found["no match"] = axe(page, PANEL)
    page.route("**/llf/api/**", lambda route: route.fulfill(status=404, body="{}"))
    panel.get_by_role("button", name="Show all runs").click()
    expect(panel.get_by_text("The list may be out of date")).to_be_visible(timeout=SEEN)
    found["silent"] = axe(page, PANEL)
    assert {view: said for view, said in found.items() if said} == {}


def test_axe_finds_nothing_without_runs_or_server(page: Any, lab: Lab, axe: Callable[..., Any]) -> None:
    found = {}

    def look(view: str) -> None:
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            set_theme(page, theme)
            found[f"{view}, {theme}"] = axe(page, PANEL)

    panel = open_panel(page, lab)
    expect(panel.get_by_text("No runs yet")).to_be_visible(timeout=SEEN)
    look("empty")
    page.route("**/llf/api/**", lambda route: route.fulfill(status=404, body="{}"))
    page.reload()
    show_panel(page)  # JupyterLab saves which panel is open only seconds later
    expect(panel.get_by_role("alert")).to_be_visible(timeout=120_000)
    look("missing")
    assert {view: said for view, said in found.items() if said} == {}


# What of a row is wider or higher than its place.
CUT_IN_ROW = """
row => [...row.querySelectorAll('.llf-RunsPanel-info, .llf-RunsPanel-loss, .llf-RunsPanel-age')]
  .filter(e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight).map(e => e.textContent)
"""


def test_nothing_is_cut_at_250_px_in_a_window_of_820(
    page: Any, lab: Lab, full: dict[str, runs.RunFolder], made: Callable[..., runs.RunFolder]
) -> None:
    long = made("long", live=True, step=12_345, total=200_000)
    with long.metrics.open("w") as file:
        for step in (12_343, 12_344, 12_345):
            record = {"step": step, "time": 1.8e9 + 0.8 * step, "attempt": 1, "values": {"loss": 4000 / step}}
            file.write(json.dumps(record) + "\n")
    page.set_viewport_size({"width": 820, "height": 900})
    panel = open_panel(page, lab)
    narrow(page, 250)
    expect(row_of(panel, full["finished"])).to_be_visible(timeout=SEEN)
    found = {"choices": page.evaluate(SELECTS, PANEL)}
    for folder, progress, number in (
        (full["live"], re.compile("^running 3/9, .* left$"), "50 %"),
        (long, "running 12345/200000, 41:42:04 left", "0.3240"),
    ):
        row = row_of(panel, folder)
        expect(row.locator(".llf-RunsPanel-info")).to_have_text(progress, timeout=SEEN)
        expect(row.locator(".llf-RunsPanel-loss")).to_have_text(number, timeout=SEEN)
        found[f"row with {number}"] = row.evaluate(CUT_IN_ROW)

    def look(view: str) -> None:
        found[view] = page.evaluate(STICKS_OUT, PANEL) + page.evaluate(CUT, PANEL)
        picture(page, f"narrow-{view}")

    look("list")
    for kind in ("failed", "finished"):
        row_of(panel, full[kind]).click(modifiers=["Control"])
    expect(panel.get_by_text("2 selected")).to_be_visible(timeout=SEEN)
    look("two chosen")
    row_of(panel, full["live"]).click()
    expect(panel.get_by_role("article", name="live")).to_be_visible(timeout=SEEN)
    look("details")
    panel.get_by_role("button", name="Branch… at step 2").click()
    page.get_by_role("dialog").get_by_label("Peak learning rate").fill("fast")
    page.get_by_role("dialog").get_by_role("button", name="Start branch").click()
    expect(page.get_by_role("alert")).to_contain_text("Expected a number above 0", timeout=SEEN)
    found["form"] = page.evaluate(STICKS_OUT, ".jp-Dialog-content") + page.evaluate(CUT, ".jp-Dialog-content")
    picture(page, "narrow-form")
    page.keyboard.press("Escape")
    panel.get_by_role("button", name="Runs", exact=True).click()
    runs.delete_run(full["finished"].id, lab.home)
    runs.delete_run(full["failed"].id, lab.home)
    panel.get_by_role("button", name="Bin:").click(timeout=SEEN)
    expect(panel.locator("[data-binned]").nth(1)).to_be_visible(timeout=SEEN)
    look("bin")
    assert {view: said for view, said in found.items() if said} == {}


# Of each name, the parts that tell it apart and are wider than their place; by fractions of a pixel, too.
SHORTENED = """
selector => {
  const width = node => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return range.getBoundingClientRect().width;
  };
  return [...document.querySelectorAll(`${selector} [data-run] .llf-RunsPanel-name`)].map(name =>
    [name.textContent, [...name.querySelectorAll('.llf-RunsPanel-distinct > *')]
      .filter(part => width(part.firstChild) > part.getBoundingClientRect().width).map(part => part.textContent)]);
}
"""
SHARED = "smollm2-135m-instruct sft lora on alpaca_en_demo with packing "


def test_names_are_told_apart_at_250_px_among_300_runs(page: Any, lab: Lab, made: Callable[..., Any]) -> None:
    hostile = list(NAMES.values())
    sweep = [f"{SHARED}lr {rate} rank {rank}" for rate in ("1e-3", "3e-3", "1e-4") for rank in (8, 16)]
    long = [f"experiment {number} of the campaign on data that is named at length" for number in range(280)]
    folders = [
        made(name, state="failed", step=1, total=9, reason=EVIL + "y" * 900)
        if at % 4 == 0
        else made(name, state="finished", step=9, total=9)
        for at, name in enumerate([*long, *hostile, *sweep])
    ]
    panel = open_panel(page, lab)
    narrow(page, 250)
    expect(panel.get_by_text(f"50 of {len(folders)} runs")).to_be_visible(timeout=SEEN)
    picture(page, "narrow-300")
    for _ in range(3):
        panel.get_by_role("button", name="Show 50 more").click()
    expect(panel.get_by_text(f"200 of {len(folders)} runs")).to_be_visible(timeout=SEEN)
    assert page.evaluate(STICKS_OUT, PANEL) == []
    assert page.evaluate("window.llfHacked") is None

    panel.get_by_role("textbox", name="Search runs").fill("rank")
    rows = panel.locator("[data-run]")
    expect(rows).to_have_count(len(sweep), timeout=SEEN)
    picture(page, "narrow-sweep")
    seen = page.evaluate(SHORTENED, PANEL)
    assert {name for name, _ in seen} == set(sweep)
    assert {name: cut for name, cut in seen if cut} == {}  # all that differs is seen
    panel.get_by_role("textbox", name="Search runs").fill("campaign")
    expect(rows).to_have_count(50, timeout=SEEN)
    picture(page, "narrow-campaign")

    search = panel.get_by_role("textbox", name="Search runs")
    search.fill("experiment 12")
    expect(rows).to_have_count(13, timeout=SEEN)  # 12, 112, 212 and 120 to 129
    search.press_sequentially("4")
    expect(rows).to_have_count(1, timeout=SEEN)
    expect(rows.first).to_contain_text(long[124])
    expect(rows.first.locator(".llf-RunsPanel-info")).to_have_attribute("title", EVIL + "y" * 900)
    assert rows.first.evaluate("e => e.offsetHeight < 70")
