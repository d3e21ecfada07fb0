"""The panel where things go wrong: broken folders, hostile names, odd clocks, dead servers and kernels."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from playwright.sync_api import expect

from llf_core import runs
from llf_core.launch import launch
from tests.processes import end, processes_of, running
from tests.ui.conftest import TOKEN, Lab, Server
from tests.ui.test_panel import PANEL, menu, open_panel, picture, show_in_notebook_7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.forking import ForkServer

pytestmark = pytest.mark.browser

HOUR = 3600
# What of an element is wider than it: its own text, or the elements that reach out of it where nothing cuts them.
STICKS_OUT = """
selector => {
  const place = document.querySelector(selector);
  if (place.scrollWidth <= place.clientWidth) return [];
  const edge = place.getBoundingClientRect().right;
  return [`${place.scrollWidth} > ${place.clientWidth}`, ...[...place.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > edge + 1 || e.scrollWidth > place.clientWidth)
    .map(e => `${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${e.scrollWidth}`)];
}
"""
SAID = ".llf-RunsPanel-status"
LOADS = 180_000  # ms for a trainer to import torch on a machine that is also used by others
SEEN = 120_000  # ms in which a view must show what has changed
EVIL = "<img src=x onerror='window.llfHacked=1'><script>window.llfHacked=2</script>"
NAMES = {
    "markup": EVIL,
    "emoji": "🦙🏽‍🚀 " * 12 + "e\u0301" + "\u0301" * 30,
    "reversed": "\u202egnp.exe\u2066\u2067 not the end",
    "unseen": "a\u200b\u200b\u2060\ufeffb\x07\x1b[31m",
    "long": "w" * 800,
    "lines": "first\nsecond\r\n\tthird",
    "template": "${window.llfHacked=3} {{constructor.constructor('window.llfHacked=4')()}} %1 %2 $& javascript:x",
}


@pytest.fixture(scope="module", autouse=True)
def no_other_runs(lab: Lab) -> None:
    """Puts aside what other tests of the same server left."""
    left = lab.home / "runs"
    if left.is_dir():
        left.rename(lab.home / f"runs-before-{time.time_ns()}")


@pytest.fixture
def made(lab: Lab) -> Iterator[Callable[..., runs.RunFolder]]:
    """Makes runs by hand in the server's home, gone with the test; `live` ones seem to be trained by this process."""
    folders = []

    def make(name: str, *, live: bool = False, **status: Any) -> runs.RunFolder:
        folder = runs.create_run("stage: sft\nmodel_name_or_path: tiny\n", name, lab.home)
        here = {"pid": os.getpid(), "started": psutil.Process().create_time(), "state": "running"} if live else {}
        change(folder, here | status)
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        shutil.rmtree(folder.path, ignore_errors=True)


def change(folder: runs.RunFolder, values: dict[str, Any]) -> None:
    """Replaces fields of a status.json at once, as writers do."""
    new = folder.path / "status.new"
    new.write_text(json.dumps(json.loads(folder.status.read_text()) | values))
    new.replace(folder.status)


def row_of(panel: Any, folder: Any) -> Any:
    return panel.locator(f"[data-run='{folder.id}']")


def first_line(row: Any) -> Any:
    return row.locator(".llf-RunsPanel-name")


def is_harmless(page: Any, place: str = PANEL) -> None:
    """No text became an element, nothing ran, and nothing sticks out."""
    found = page.locator(place)
    assert found.locator("img, script, a, iframe").count() == 0
    assert page.evaluate("window.llfHacked") is None
    assert page.evaluate(STICKS_OUT, place) == []


def look(panel: Any) -> None:
    """Has the panel ask at once, as any change of what is wanted does."""
    for order in ("oldest", "newest"):
        panel.get_by_role("combobox", name="Sort by").select_option(order)


# -- folders -------------------------------------------------------------------------------------------------


def test_a_folder_is_broken_and_mended_under_the_view(page: Any, lab: Lab, made: Any) -> None:
    other, folder = made("other", state="finished", step=9, total=9), made("half", state="stopped", step=3, total=9)
    runs.RunWriter(folder).metric(1, {"loss": 2.5})
    panel = open_panel(page, lab)
    row = row_of(panel, folder)
    expect(row).to_contain_text("stopped 3/9", timeout=SEEN)
    expect(row).to_contain_text("2.50")

    whole = folder.status.read_bytes()
    for half, said in (
        (whole[: len(whole) // 2], "cannot be read"),
        (b'{"format": 2, "state": "running"}', "has format 2. Expected 1: upgrade llf to read it."),
    ):
        folder.status.write_bytes(half)
        look(panel)
        expect(row).to_contain_text("broken", timeout=SEEN)
        row.click()
        details = panel.get_by_role("article", name="half")
        expect(details.locator(".llf-State")).to_have_text("broken", timeout=SEEN)
        expect(details).to_contain_text(said)
        folder.status.write_bytes(whole)
        expect(details.locator(".llf-State")).to_have_text("stopped", timeout=SEEN)
        panel.get_by_role("button", name="Runs", exact=True).click()
        expect(row_of(panel, other)).to_contain_text("finished 9/9")

    with folder.metrics.open("ab") as file:
        file.write(b'{"step":2,"time":1,"values":{"lo')
    folder.meta.write_bytes(b"")
    look(panel)
    expect(first_line(row)).to_have_text(folder.id, timeout=SEEN)
    expect(row).to_contain_text("2.50")
    with folder.metrics.open("ab") as file:
        file.write(b'ss":1.25}}\n')
    look(panel)
    expect(row).to_contain_text("1.25", timeout=SEEN)
    menu(page, row, "Rename…")
    page.get_by_role("dialog").get_by_role("textbox").fill("named again")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(first_line(row)).to_have_text("named again", timeout=SEEN)


def test_a_folder_goes_under_the_view(page: Any, lab: Lab, made: Any) -> None:
    stays, first, second = (made(name, state="stopped", step=3, total=9) for name in ("stays", "first", "second"))
    panel = open_panel(page, lab)
    row_of(panel, first).click(timeout=SEEN)
    expect(panel.get_by_role("article", name="first")).to_be_visible(timeout=SEEN)
    shutil.rmtree(first.path)
    expect(panel.locator(SAID)).to_have_text(f"No run {first.id} in the LLF_HOME of the server.", timeout=SEEN)
    expect(row_of(panel, stays)).to_be_visible()
    expect(row_of(panel, first)).to_have_count(0)

    # Asked for something while it is still listed here.
    page.route("**/llf/api/runs?**", lambda route: route.abort())
    shutil.rmtree(second.path)
    menu(page, row_of(panel, second), "Move to the bin")
    expect(panel.locator(SAID)).to_contain_text(f"No run {second.id} in the LLF_HOME of the server.", timeout=SEEN)
    page.unroute("**/llf/api/runs?**")
    expect(row_of(panel, second)).to_have_count(0, timeout=SEEN)
    assert stays.path.is_dir()


def test_clocks_that_differ_change_no_state(page: Any, lab: Lab, made: Any) -> None:
    """All that the run wrote is an hour ahead of this page, then an hour behind it, and jumps back in between."""
    then = time.time() + HOUR
    folder = made("ahead", live=True, step=3, total=9, step_seconds=20.0, heartbeat=then, created=then)
    elsewhere = made("elsewhere", live=True, host="elsewhere", heartbeat=then, step=1, total=2, created=then)
    writer = runs.RunWriter(folder)
    writer.metric(1, {"loss": 3.0})
    lines = [{"step": step, "time": then - step * HOUR, "values": {"loss": 3.0 / step}} for step in (2, 3)]
    with folder.metrics.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    panel = open_panel(page, lab)
    row = row_of(panel, folder)
    expect(row).to_contain_text("running 3/9, 2:00 left", timeout=SEEN)
    expect(row.locator(".llf-RunsPanel-age")).to_have_text("0 s")
    expect(row_of(panel, elsewhere)).to_contain_text("running 1/2")
    row.click()
    expect(panel.get_by_text("2:00 left")).to_be_visible(timeout=SEEN)
    assert not re.search(r"-\d", panel.locator("article header, .llf-Details-steps").first.inner_text())
    change(folder, {"heartbeat": then - 2 * HOUR, "created": then - 2 * HOUR, "step": 4})
    expect(panel.get_by_text("1:40 left")).to_be_visible(timeout=SEEN)
    expect(panel.locator(".llf-State")).to_have_text("running")
    panel.get_by_role("button", name="Runs", exact=True).click()
    expect(row.locator(".llf-RunsPanel-age")).to_have_text("1 h")


# -- hostile texts, names, keys ------------------------------------------------------------------------------


def test_hostile_texts_are_only_text(page: Any, lab: Lab, made: Any) -> None:
    folders = {kind: made(name, state="stopped", step=3, total=9) for kind, name in NAMES.items()}
    live = made(NAMES["markup"] + NAMES["long"], live=True, step=1, total=9)
    note = f"{EVIL} 🦙 \u202e" + "x" * 5000 + " word" * 1000
    runs.update_meta(folders["markup"], tags=[EVIL, "🦙", "t" * 60, "\u202eback"], note=note)
    change(folders["markup"], {"state": "failed", "reason": EVIL + "y" * 500})
    writer = runs.RunWriter(folders["markup"])
    writer.event("warning", message=EVIL + "w" * 900)
    writer.sample(step=2, kind="answer", prompt=EVIL, text=EVIL + "z" * 900, of="tuned")
    folders["markup"].log.write_text(EVIL + "l" * 900)
    panel = open_panel(page, lab)
    rows = panel.locator("[data-run]")
    expect(rows).to_have_count(len(NAMES) + 1, timeout=SEEN)
    for kind in ("markup", "template"):
        expect(first_line(row_of(panel, folders[kind]))).to_have_text(NAMES[kind])
    assert {rows.nth(at).evaluate("e => e.offsetHeight < 70") for at in range(rows.count())} == {True}
    picture(page, "hostile-list")
    is_harmless(page)

    panel.get_by_role("combobox", name="Group by").select_option("model")
    is_harmless(page)
    panel.get_by_role("combobox", name="Group by").select_option("")
    for folder in folders.values():
        row_of(panel, folder).click()
        expect(panel.locator("article")).to_be_visible(timeout=SEEN)
        is_harmless(page)
        panel.get_by_role("button", name="Runs", exact=True).click()
    row_of(panel, folders["markup"]).click()
    expect(panel.get_by_role("region", name="Note").locator("p")).to_have_text(
        note.replace("\u202e", ""), use_inner_text=False, timeout=SEEN
    )
    picture(page, "hostile-details")
    panel.get_by_role("button", name="Runs", exact=True).click()

    # Dialogs, the last line and notifications say names too.
    menu(page, row_of(panel, live), "Kill…")
    cut = f"{EVIL[:24]}…{'w' * 24}"
    expect(page.get_by_role("dialog")).to_contain_text(cut)
    expect(page.get_by_role("button", name="Keep running")).to_be_focused()
    is_harmless(page, ".jp-Dialog-content")
    picture(page, "hostile-dialog")
    page.get_by_role("button", name="Keep running").click()
    menu(page, row_of(panel, folders["long"]), "Move to the bin")
    expect(panel.locator(SAID)).to_contain_text(f"“{'w' * 24}…{'w' * 24}” moved to the bin.", timeout=SEEN)
    is_harmless(page)
    change(live, {"state": "failed", "reason": EVIL})
    toast = page.locator(".Toastify__toast", has_text=f"{cut}: {EVIL[:20]}")
    expect(toast).to_be_visible(timeout=SEEN)
    is_harmless(page, ".Toastify__toast")
    picture(page, "hostile-toast")


def unnamed(panel: Any) -> list[str]:
    """Controls without an accessible name, as assistive technology is told of them."""
    roles = "button|link|textbox|searchbox|combobox|checkbox|slider|progressbar|article|region|img"
    return re.findall(rf"^ *- '?((?:{roles})\b(?! \").*)$", panel.aria_snapshot(), re.MULTILINE)


def repeated_ids(page: Any) -> list[str]:
    return page.evaluate(
        "s => [...document.querySelectorAll(`${s}, ${s} [id]`)].map(e => e.id)"
        ".filter(id => document.querySelectorAll('#' + CSS.escape(id)).length !== 1)",
        PANEL,
    )


def focused(page: Any) -> str:
    return page.evaluate("() => document.activeElement.dataset.run ?? document.activeElement.textContent")


def test_everything_has_a_name_and_is_done_by_keys(page: Any, lab: Lab, made: Any) -> None:
    first, second = made("one", state="finished", step=9, total=9), made("two", state="stopped", step=3, total=9)
    third = made("three", live=True, step=3, total=9)
    first.output.mkdir()
    (first.output / "adapter_config.json").write_text('{"r": 8}')
    runs.update_meta(third, tags=["tag"], note="A note.")
    for folder in (first, second, third):
        writer = runs.RunWriter(folder)
        for step in (1, 2, 3):
            writer.metric(step, {"loss": 1.0 / step, "eval_loss": 2.0 / step})
        writer.event("warning", message="Watch out.")
        folder.log.write_text("a line\n")
    panel = open_panel(page, lab)
    expect(row_of(panel, third)).to_be_visible(timeout=SEEN)
    expect(panel.get_by_role("region", name="Adapters")).to_be_visible(timeout=SEEN)
    assert (unnamed(panel), repeated_ids(page)) == ([], [])

    # From the search through the list, into a run and back to its row. Runs of one second are in no order.
    order = [row.get_attribute("data-run") for row in panel.locator("[data-run]").all()]
    panel.get_by_role("textbox", name="Search runs").focus()
    for _ in range(5):
        page.keyboard.press("Tab")
    assert focused(page) == order[0]
    page.keyboard.press("ArrowDown")
    assert focused(page) == order[1]
    page.keyboard.press("End")
    assert focused(page) == order[2]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    details = panel.get_by_role("article", name=runs.read_meta(runs.open_run(order[1], lab.home))["name"])
    expect(details).to_be_visible(timeout=SEEN)
    expect(details.get_by_role("region", name="Log")).to_be_visible(timeout=SEEN)
    assert (unnamed(panel), repeated_ids(page)) == ([], [])
    expect(panel.get_by_role("button", name="Runs", exact=True)).to_be_focused(timeout=SEEN)
    middle = panel.locator(f"[data-run='{order[1]}']")
    page.keyboard.press("Enter")
    expect(middle).to_be_focused(timeout=SEEN)
    page.keyboard.press("Enter")
    expect(details).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(middle).to_be_focused(timeout=SEEN)

    # The one that was opened is chosen; Space adds another, and the menu is for both.
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(panel.get_by_text("2 selected")).to_be_visible()
    assert (unnamed(panel), repeated_ids(page)) == ([], [])
    page.keyboard.press("Shift+F10")
    expect(page.get_by_role("menuitem", name="Compare 2 runs")).to_be_visible(timeout=SEEN)
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)


# -- servers and kernels -------------------------------------------------------------------------------------


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[Lab]:
    """A JupyterLab that a test may end."""
    (tmp_path / "own").mkdir()
    server = Server(tmp_path / "own")
    yield Lab(url=server.start_to_restart(), root=server.root, home=server.home, server=server)
    server.stop()


def test_a_server_refuses_and_is_restarted_under_the_view(page: Any, own_lab: Lab, made: Any) -> None:
    lab = own_lab
    folder = made("goes on", live=True, step=3, total=9)
    shutil.copytree(folder.path, lab.home / "runs" / folder.id)
    folder = runs.RunFolder(lab.home / "runs" / folder.id)
    panel = open_panel(page, lab)
    row_of(panel, folder).click(timeout=SEEN)
    expect(panel.get_by_text("step 3 of 9")).to_be_visible(timeout=SEEN)

    said = json.dumps({"message": "Log in to the Jupyter server first."})
    page.route("**/llf/api/**", lambda route: route.fulfill(status=403, body=said))
    refused = panel.get_by_text("Log in to the Jupyter server first. The list may be out of date.")
    expect(refused).to_be_visible(timeout=SEEN)
    page.unroute("**/llf/api/**")
    panel.get_by_role("button", name="Try again").click()
    expect(refused).to_have_count(0, timeout=SEEN)

    port = int(lab.url.split(":")[2].split("/")[0])
    lab.server.stop(signal.SIGKILL)
    silent = panel.get_by_text(
        "The Jupyter server does not answer. The list may be out of date. Your runs are not affected."
    )
    expect(silent).to_be_visible(timeout=SEEN)
    expect(panel.get_by_text("step 3 of 9")).to_be_visible()  # what is shown stays
    change(folder, {"step": 7})
    assert lab.server.start(port) == lab.url
    expect(panel.get_by_text("step 7 of 9")).to_be_visible(timeout=120_000)
    expect(silent).to_have_count(0)


# -- real runs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_run(
    lab: Lab, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[Any]:
    """A run of a tiny real model that goes on for long, in the Lab's own LLF_HOME."""
    data = tmp_path_factory.mktemp("data") / "rows.json"
    data.write_text(json.dumps([{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(40)]))
    config = {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(data), "max_steps": 1_000_000, "logging_steps": 20,
        "save_steps": 1_000_000, "per_device_train_batch_size": 4, "threads": 1,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server.python))
        run = launch(config, home=lab.home, name="real")
    yield run
    for path in (lab.home / "runs").glob("*-real*"):
        runs.kill_run(runs.RunFolder(path))


def state_of(panel: Any, folder: Any, word: str) -> None:
    expect(row_of(panel, folder)).to_contain_text(word, timeout=LOADS)


def others(lab: Lab, real_run: Any) -> list[runs.RunFolder]:
    """Runs that were made from the real one."""
    return [runs.RunFolder(path) for path in (lab.home / "runs").glob("*-real*") if path.name != real_run.id]


@pytest.mark.launches
def test_what_the_menu_does_in_jupyterlab_and_a_kernel_that_dies(page: Any, lab: Lab, real_run: Any) -> None:
    """What `test_panel.py` does not click: Open monitor, Note, Copy id, Run it again, Compare."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel = open_panel(page, lab)
    row = row_of(panel, real_run)
    state_of(panel, real_run, "running")

    menu(page, row, "Copy run id")
    expect(panel.locator(SAID)).to_have_text("Copied.", timeout=SEEN)
    assert page.evaluate("() => navigator.clipboard.readText()") == real_run.id

    menu(page, row, "Edit note…")
    text = "First line.\n" + EVIL
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Note").fill(text)
    dialog.get_by_role("textbox", name="Note").press("Enter")  # a line more, not the dialog's end
    dialog.get_by_role("button", name="Save").click()
    expect(panel.locator(SAID)).to_have_text("Saved.", timeout=SEEN)
    assert runs.read_meta(real_run.folder)["note"].strip() == text

    menu(page, row, "Open monitor")
    expect(page.locator(".llf-Monitor .llf-State").first).to_have_text("running", timeout=120_000)
    menu(page, row, "Run again")
    expect(panel.locator("[data-run]", has_text="real")).to_have_count(2, timeout=SEEN)
    (again,) = others(lab, real_run)
    state_of(panel, again, "running")

    for one in (row, row_of(panel, again)):
        if one.get_attribute("aria-pressed") == "false":
            one.click(modifiers=["Control"])
        expect(one).to_have_attribute("aria-pressed", "true")
    expect(panel.get_by_text("2 selected")).to_be_visible()
    menu(page, row, "Compare 2 runs")
    expect(page.locator(".llf-Compare").first).to_be_visible(timeout=120_000)
    assert page.evaluate("window.llfHacked") is None

    kernels = running(processes_of(lab.home), "ipykernel_launcher")
    assert kernels
    end(kernels)
    seen = runs.read_status(real_run.folder).step
    page.wait_for_function(
        "([id, seen]) => Number(/running (\\d+)/.exec(document.querySelector(`[data-run='${id}']`)?.textContent)?.[1])"
        " > seen",
        arg=[real_run.id, seen],
        timeout=SEEN,
    )
    assert (real_run.status().state, real_run.status().attempt) == ("running", 1)
    assert runs.read_status(again).state == "running"


def open_tab(page: Any, lab: Lab, workspace: str) -> Any:
    """The panel in one of several tabs of a browser, which JupyterLab wants to have workspaces of their own."""
    page.goto(f"{lab.url}lab/workspaces/{workspace}?token={TOKEN}&reset")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell", timeout=120_000)
    page.evaluate("() => window.jupyterapp.restored.then(() => window.jupyterapp.shell.activateById('llf-runs'))")
    return page.locator(PANEL)


@pytest.mark.launches
def test_two_tabs_stop_one_run(page: Any, lab: Lab, real_run: Any) -> None:
    late, first = page, page.context.new_page()
    panels = [open_tab(one, lab, name) for one, name in ((first, "a"), (late, "b"))]
    for panel in panels:
        state_of(panel, real_run, "running")
    late.route("**/llf/api/runs?**", lambda route: route.abort())  # it shows what was true a moment ago
    for one, panel in zip((first, late), panels, strict=True):
        row_of(panel, real_run).click(button="right")
        expect(one.get_by_role("menuitem", name="Stop with checkpoint")).to_be_visible()
    for one in (first, late):
        one.get_by_role("menuitem", name="Stop with checkpoint").click()
    assert real_run.wait(120, progress=False).state == "stopped"
    asked, refused = (
        "Stopping after the current step.",
        "The run is stopped, so it cannot handle the request.",
    )
    expect(panels[0].locator(SAID)).to_have_text(asked)
    expect(panels[1].locator(SAID)).to_have_text(re.compile(f"{re.escape(asked)}|{re.escape(refused)}"))
    menu(late, row_of(panels[1], real_run), "Stop with checkpoint")
    expect(panels[1].locator(SAID)).to_have_text(refused, timeout=SEEN)
    late.unroute("**/llf/api/runs?**")
    for panel in panels:
        state_of(panel, real_run, "stopped")

    events = [json.loads(line) for line in real_run.folder.events.read_text().splitlines()]
    assert [event["state"] for event in events if event["type"] == "state"].count("stopped") == 1
    heard = [event["id"] for event in events if event["type"] == "request" and event["request"] == "stop"]
    answered = [event["id"] for event in events if event["type"] == "answer" and event["request"] == "stop"]
    assert heard
    assert set(heard) <= set(answered)
    assert len(answered) == len(set(answered))
    assert not list(real_run.folder.control.iterdir())
    assert runs.Checkpoints(real_run.folder).list() == [real_run.status().step]


@pytest.mark.launches
def test_what_the_menu_does_in_notebook_7(page: Any, lab: Lab, real_run: Any) -> None:
    run = next(iter(others(lab, real_run)), None) or real_run.replay().folder
    lab.notebook("seven.ipynb", "1")
    page.goto(lab.address("seven.ipynb", "notebooks"))
    panel = show_in_notebook_7(page)
    row = row_of(panel, run)
    state_of(panel, run, "running")
    assert (unnamed(panel), repeated_ids(page)) == ([], [])

    menu(page, row, "Save checkpoint")
    expect(panel.locator(SAID)).to_have_text("Checkpoint requested.", timeout=SEEN)
    menu(page, row, "Stop with checkpoint")
    state_of(panel, run, "stopped")
    kept = runs.Checkpoints(run).list()
    assert kept[-1] == runs.read_status(run).step
    menu(page, row, "Rename…")
    page.get_by_role("dialog").get_by_role("textbox").fill("seven")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(first_line(row)).to_have_text("seven", timeout=SEEN)
    menu(page, row, "Move to the bin")
    expect(row).to_have_count(0, timeout=SEEN)
    page.locator(".Toastify__toast").get_by_role("button", name="Undo").click()
    expect(row).to_be_visible(timeout=SEEN)

    menu(page, row, "Resume")
    state_of(panel, run, "running")
    assert runs.read_status(run).attempt == 2
    menu(page, row, "Kill…")
    page.get_by_role("dialog").get_by_role("button", name="Kill now").click()
    state_of(panel, run, "failed")
    assert runs.Checkpoints(run).list() == kept
    menu(page, row, "Open monitor")
    expect(page.locator(".llf-Monitor .llf-State").last).to_have_text("failed", timeout=120_000)

    with page.context.expect_page() as opened:
        panel.get_by_role("button", name="New run").click()
    expect(panel.locator(SAID)).to_have_text("Run the cell in the notebook that opened in a new tab.", timeout=SEEN)
    expect(opened.value.locator(".jp-Notebook .jp-Cell").first).to_contain_text("llf.Studio()", timeout=120_000)
