"""The monitor where a real trainer is not needed; `test_quickstart.py` has one."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.ui.conftest import PATIENCE, set_theme, settled

pytestmark = pytest.mark.browser

VIEW_MIME_TYPE = "application/vnd.llf.view+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
TOY = Path(__file__).with_name("toy_trainer.py")
POINTS = (
    "() => { const g = document.querySelector('.llf-Monitor .js-plotly-plot'); return g?.data?.[0]?.x?.length ?? 0; }"
)
AS_WIDE_AS_ITS_VIEW = (
    "() => { const plot = document.querySelector('.llf-Monitor .js-plotly-plot');"
    " const drawn = plot?.querySelector('.main-svg')?.clientWidth;"
    " const room = document.querySelector('.llf-Monitor')?.clientWidth;"
    " return drawn > 100 && Math.abs(room - drawn) < 20; }"
)
FIRST_STEPS = 3
LIVE, ENDED = "live.ipynb", "ended.ipynb"
"""Notebooks: one that was open before finds its kernel there."""


@pytest.fixture
def page(reused_page):
    """JupyterLab is loaded once for all tests here."""
    return reused_page


@pytest.fixture
def live(lab):
    """A run of ten minutes in the Lab's own LLF_HOME; ended with the test."""
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(lab.home), "3000", "5"], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()


def wait_for_points(page, more_than):
    page.wait_for_function(f"n => ({POINTS})() > n", arg=more_than, timeout=120_000)
    return page.evaluate(POINTS)


def show(page, lab, live, *more):
    """A notebook with a Monitor of the run, its curve drawn; further cells run behind it."""
    path = lab.notebook(LIVE, f"import llf_widgets as llf\nllf.Monitor({live!r})", *more)
    lab.open(page, LIVE)
    lab.run_all(page)
    wait_for_points(page, FIRST_STEPS)
    return path


def head(page):
    return page.locator(".llf-Monitor").first


def state(page):
    return page.locator(".llf-Monitor .llf-State").first


def test_without_the_server_the_kernel_is_asked(routed_page, lab, live):
    routed_page.route("**/llf/api/runs/**", lambda route: route.fulfill(status=404, body="{}"))
    show(routed_page, lab, live)
    routed_page.get_by_role("button", name="Kill…").click()
    kill = routed_page.get_by_role("button", name="Kill now").element_handle()
    routed_page.get_by_role("button", name="Save checkpoint").click()
    expect(head(routed_page)).to_contain_text("Checkpoint requested through the kernel")
    expect(head(routed_page)).to_contain_text("The Jupyter server answered 404.")
    assert kill.is_visible()  # the confirmation stays while the header changes
    routed_page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(routed_page)).to_have_text("stopped")


def test_a_kernel_with_another_home_says_so(page, lab, tmp_path):
    process = subprocess.Popen([sys.executable, str(TOY), str(tmp_path), "8", "5"], stdout=subprocess.PIPE, text=True)
    run = process.stdout.readline().strip()
    lab.notebook(
        "elsewhere.ipynb",
        f"import os; os.environ['LLF_HOME'] = {str(tmp_path)!r}",
        f"import llf_widgets as llf\nllf.Monitor({run!r})",
    )
    lab.open(page, "elsewhere.ipynb")
    lab.run_all(page)
    expect(head(page)).to_contain_text(
        f"This kernel writes runs to {tmp_path / 'runs'}, the panel reads", timeout=120_000
    )
    process.kill()
    process.wait()


def test_the_saved_notebook_speaks_without_a_kernel(page, lab, live):
    path = show(page, lab, live)
    page.get_by_role("button", name="Stop with checkpoint").click()
    expect(state(page)).to_have_text("stopped")
    kept = "() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.toJSON().cells[0].outputs)"
    page.wait_for_function(f"() => ({kept})().includes('with checkpoint-')", timeout=PATIENCE)
    lab.save(page)
    [static] = [output["data"] for output in nbformat.read(path, 4).cells[0].outputs]
    assert {"image/png", "text/html", "text/plain", VIEW_MIME_TYPE, WIDGET} == set(static)
    assert static[VIEW_MIME_TYPE]["state"] == "stopped"


def test_the_charts_of_an_ended_run_are_as_wide_as_its_view(page, lab):
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\n", "wide", lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.0})
    writer.close("finished")
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    for width in (1500, 1280):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_function(AS_WIDE_AS_ITS_VIEW, timeout=120_000)


def test_names_are_never_html(page, lab):
    from llf_core.runs import RunWriter, create_run

    evil = "<img src=x onerror='window.llfHacked=1'>"
    folder = create_run("model_name_or_path: m\n", evil, lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.0})
    writer.event("warning", message=evil)
    folder.log.write_text(evil)
    writer.close("failed", f"Because of {evil}.")
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    expect(head(page)).to_contain_text(f"Because of {evil}.", timeout=120_000)
    expect(head(page).get_by_role("alert").first).to_contain_text("Error")
    assert page.evaluate("window.llfHacked") is None


PAIRS = [
    {"prompt": f"What is {n}?", "chosen": f"It is number {n}.", "rejected": "the sea and the rain"} for n in range(40)
]
LABELS = (
    "() => [...document.querySelectorAll('.llf-Monitor .js-plotly-plot .annotation-text')].map(text => {"
    " const { left, right, top, bottom } = text.getBoundingClientRect();"
    " return { text: text.textContent, left, right, top, bottom }; }).filter(one => one.text.trim())"
)
STROKE = (
    "name => { const plot = document.querySelector('.llf-Monitor .js-plotly-plot');"
    " const at = plot.data.findIndex(one => one.name === name);"
    " const trace = plot._fullData[at]; const found = [...plot.querySelectorAll('.scatterlayer .trace')]"
    ".find(one => one.__data__?.[0]?.trace?.uid === trace?.uid);"
    " const line = found?.querySelector('.js-line'); return line ? getComputedStyle(line).stroke : null; }"
)


def overlapping(labels):
    """Pairs of words that stand on each other by more than their line height allows."""
    found = []
    for number, one in enumerate(labels):
        for other in labels[:number]:
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            if across > 1 and down > 4:
                found.append((one["text"], other["text"]))
    return found


def has_all_charts(labels):
    """Whether all charts of a run on pairs are drawn, with the last accuracy on held-out pairs."""
    texts = [one["text"] for one in labels]
    return {"Loss", "Rewards", "Accuracy", "Log-probabilities", "Learning rate"} <= set(texts) and any(
        text.startswith("held out") and text.endswith("%") for text in texts
    )


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_a_real_run_on_pairs_in_both_themes(page, lab, tiny_model_dir, tmp_path):
    from llf_core.launch import launch

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    run = launch(
        {
            "model_name_or_path": str(tiny_model_dir), "stage": "dpo", "dataset": str(tmp_path / "pairs.jsonl"),
            "val_size": 0.2, "max_steps": 24, "learning_rate": 1e-3, "logging_steps": 1, "eval_strategy": "steps",
            "eval_steps": 6, "save_strategy": "no",
        },
        home=lab.home,
    )  # fmt: skip
    assert run.wait(240, progress=False).state == "finished"
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({run.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    expect(head(page)).to_contain_text("Held-out accuracy", timeout=120_000)
    wait_for_points(page, FIRST_STEPS)
    for width in (1500, 1100):
        page.set_viewport_size({"width": width, "height": 1400})
        page.wait_for_function(AS_WIDE_AS_ITS_VIEW, timeout=120_000)
        labels = settled(page, lambda: page.evaluate(LABELS), has_all_charts)
        assert overlapping(labels) == []
    light = page.evaluate(STROKE, "rewards/margins, smoothed")
    set_theme(page, "JupyterLab Dark")
    other = f"light => {{ const now = ({STROKE})('rewards/margins, smoothed'); return now !== null && now !== light; }}"
    page.wait_for_function(other, arg=light, timeout=120_000)
    expect(page.locator(".llf-Monitor .llf-Events")).to_contain_text("accuracy")


def test_sampled_answers_are_walked_through_with_the_keyboard(page, lab):
    from llf_core.runs import RunWriter, create_run

    evil = "<img src=x onerror='window.llfHacked=1'>"
    folder = create_run("model_name_or_path: m\nstage: grpo\n", "sampled", lab.home)
    writer = RunWriter(folder)
    for step in (1, 2, 3):
        writer.metric(step, {"loss": 0.0, "reward": step / 3})
        for place, (form, right) in enumerate(((1.0, 0.0), (0.0, 0.75), (0.5, 0.5))):
            said = f"answer {place} of step {step} {evil}"
            rewards = {"form": form, "right": right}
            writer.sample(step=step, kind="completion", prompt=evil, text=said, reward=form + right, rewards=rewards)
    writer.close("finished")
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    part = page.get_by_role("region", name="Sampled completions and rewards")
    expect(part).to_contain_text("step 3: 3 completions; mean reward 0.9167", timeout=120_000)
    expect(part.locator("tbody tr td:first-child")).to_have_text(["1.000", "1.000", "0.7500"])
    slider = part.get_by_role("slider")
    slider.focus()
    slider.press("ArrowLeft")
    expect(part).to_contain_text("step 2: 3 completions")
    expect(part.locator("tbody")).to_contain_text("of step 2")
    part.get_by_role("button", name="right").focus()
    page.keyboard.press("Enter")
    expect(part.locator("tbody tr td:nth-child(3)")).to_have_text(["0.7500", "0.5000", "0"])
    expect(part.get_by_role("columnheader", name="right")).to_have_attribute("aria-sort", "descending")
    expect(part.get_by_role("button", name="right")).to_be_focused()
    assert part.locator("img").count() == 0
    assert page.evaluate("window.llfHacked") is None


def test_older_answers_are_one_click_away(page, lab):
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\nstage: sft\n", "asked", lab.home)
    writer = RunWriter(folder)
    for step in range(1, 31):
        writer.metric(step, {"loss": 1 / step})
        for prompt in ("Hi?", "Ho?"):
            writer.sample(step=step, kind="answer", prompt=prompt, text=f"{prompt} {step}!", of="tuned")
    writer.close("finished")
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    part = page.get_by_role("region", name="Watched prompts")
    expect(part).to_contain_text("Hi? 30!", timeout=120_000)
    part.get_by_role("combobox").select_option(label="2 of 2: Ho?")
    slider, older = part.get_by_role("slider"), part.get_by_role("button", name="Show 10 older completions")
    slider.press("Home")
    expect(part).to_contain_text("Ho? 11!")
    older.focus()
    page.keyboard.press("Enter")
    expect(older).to_have_count(0)
    expect(slider).to_be_focused()
    expect(part).to_contain_text("Ho? 11!")
    slider.press("Home")
    expect(part).to_contain_text("Ho? 1!")


def test_charts_that_are_seldom_looked_at_wait_for_a_click(page, lab):
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\nstage: ppo\n", "phases", lab.home)
    writer = RunWriter(folder)
    more = ("clip_fraction", "approx_kl", "policy_loss", "value_loss", "kl_coef", "explained_variance", "advantages")
    for step in range(1, 30):
        values = {"loss": 0.1, "reward": step / 30, "kl": step / 100, "entropy": 1 / step, "response_length": 40.0}
        writer.metric(step, values | dict.fromkeys(more, 0.1 + step / 1000))
    writer.close("finished")
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Monitor({folder.id!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    view = page.locator(".llf-Monitor").first
    button = view.get_by_role("button", name="more charts")
    expect(button).to_have_text("Show 7 more charts", timeout=120_000)
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(view).to_contain_text("Clip fraction · Update size · Loss")
    headings = view.locator(".js-plotly-plot .annotation-text")
    expect(headings.filter(has_text=re.compile("^Entropy$"))).to_have_count(1)
    expect(headings.filter(has_text=re.compile("^Explained variance$"))).to_have_count(0)
    button.focus()
    page.keyboard.press("Enter")
    expect(headings.filter(has_text=re.compile("^Explained variance$"))).to_have_count(1)
    fewer = view.get_by_role("button", name="Show fewer charts")
    expect(fewer).to_have_attribute("aria-expanded", "true")
    expect(fewer).to_be_focused()
    fewer.click()
    expect(headings.filter(has_text=re.compile("^Explained variance$"))).to_have_count(0)


def test_another_curve_is_compared(page, lab):
    from llf_core.runs import RunWriter, create_run

    ids = []
    for name in ("one", "two"):
        folder = create_run("model_name_or_path: m\nstage: dpo\n", name, lab.home)
        writer = RunWriter(folder)
        for step in range(1, 6):
            writer.metric(step, {"loss": 0.6, "rewards/accuracies": 0.5 + step / 20, "rewards/margins": step / 10})
        writer.close("finished")
        ids.append(folder.id)
    lab.notebook(ENDED, f"import llf_widgets as llf\nllf.Compare({ids!r})")
    lab.open(page, ENDED)
    lab.run_all(page)
    view = page.locator(".llf-Compare").first
    choose = view.get_by_label("Curve", exact=True)
    expect(choose).to_have_value("loss", timeout=120_000)
    choose.select_option("rewards/margins")
    expect(view).to_contain_text("The margin between them should grow.")
    expect(view.get_by_label("log scale")).to_be_disabled()
    expect(view.locator(".js-plotly-plot")).to_contain_text("Rewards: margin")


COLORS = (
    "() => [...new Set([...document.querySelectorAll('.llf-Monitor *')].map(getComputedStyle)"
    ".map(({color, backgroundColor}) => `${color} on ${backgroundColor}`))].sort()"
)


def test_nobody_is_shut_out(page, lab, live, axe):
    show(page, lab, live)
    assert axe(page, ".llf-Monitor") == []
    set_theme(page, "JupyterLab Dark")
    settled(page, lambda: page.evaluate(COLORS))
    assert axe(page, ".llf-Monitor") == []


def test_stop_is_at_hand_while_a_reader_scrolls(page, lab, live):
    show(page, lab, live, *["1"] * 30)
    page.set_viewport_size({"width": 1280, "height": 600})
    page.locator(".llf-Log").scroll_into_view_if_needed()
    button = page.get_by_role("button", name="Stop with checkpoint")
    settled(page, button.bounding_box, lambda place: 0 < place["y"] < 600 - place["height"])
    button.click(trial=True)


def test_a_view_in_an_output_that_scrolls_stays_whole(page, lab, live):
    """Notebook 7 has an output scroll that is longer than a hundred lines, each time that it changes."""
    show(page, lab, live, "1")
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:enable-output-scrolling').then(() => null)")
    area = page.locator(".jp-mod-outputsScrolled .jp-Cell-outputArea").first
    expect(area).to_be_attached()
    settled(
        page,
        lambda: [one.bounding_box()["height"] for one in (area, head(page))],
        lambda heights: heights[0] >= heights[1] > 500,
    )


@pytest.mark.parametrize("shown", ["llf.Monitor({!r})", "ipywidgets.VBox([llf.Monitor({!r})])"])
def test_an_answer_of_the_result_is_one_cell_away(page, lab, shown):
    """Of the server's view, and of the kernel's, as a form has it."""
    from llf_core.runs import RunWriter, create_run

    folder = create_run("model_name_or_path: m\nstage: sft\n", "asked", lab.home)
    writer = RunWriter(folder)
    writer.metric(1, {"loss": 1.0})
    folder.output.mkdir()
    writer.close("finished")
    lab.notebook(ENDED, f"import ipywidgets\nimport llf_widgets as llf\n{shown.format(folder.id)}", "1 + 1")
    lab.open(page, ENDED)
    lab.run_cell(page, 0)
    page.get_by_role("textbox", name="Prompt", exact=True).fill('Say "hi" \\ {x}.', timeout=120_000)
    page.keyboard.press("Enter")
    expect(page.get_by_text("The completions are in a cell below.")).to_be_visible()
    sources = (
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map(one => one.model.sharedModel.getSource())"
    )
    page.wait_for_function(f"() => ({sources})().length === 3", timeout=PATIENCE)
    code = page.evaluate(sources)[1]
    assert ast.literal_eval(code.split("llf.answers")[1]) == (folder.id, ['Say "hi" \\ {x}.'])


def test_a_narrow_page_has_all_charts_in_sight(page, lab, live):
    show(page, lab, live)
    page.set_viewport_size({"width": 820, "height": 1400})
    narrow = (
        "() => { const {layout} = document.querySelector('.llf-Monitor .js-plotly-plot');"
        " return layout[layout.meta.charts.find(({title}) => title === 'Gradient norm').xaxis].domain[1]; }"
    )
    page.wait_for_function(f"() => ({narrow})() > 0.9", timeout=PATIENCE)
    view, plot = head(page), page.locator(".llf-Monitor .js-plotly-plot")
    settled(
        page,
        lambda: [one.bounding_box()["width"] for one in (view, plot)],
        lambda widths: widths[1] <= widths[0] + 1,
    )
    settled(page, lambda: overlapping(page.evaluate(LABELS)), lambda found: found == [])
