"""The form as a user meets it: filled in, told what is wrong, mended by its button, started."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import set_theme, settled

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ui.conftest import Lab

CELL = "import llf_widgets as llf\nstudio = llf.Studio()\nstudio"

pytestmark = pytest.mark.browser


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


def open_studio(page: Any, lab: Lab, name: str = "form.ipynb", *cells: str) -> Any:
    """A notebook whose cell shows the form; returns the form. One that was open before finds its kernel there."""
    lab.notebook(name, *(cells or (CELL,)))
    lab.open(page, name)
    lab.run_all(page)
    form = page.locator(".llf-Studio")
    form.get_by_label("Configuration as YAML").wait_for(timeout=120_000)
    form.get_by_role("button", name="Start", exact=True).wait_for()
    return form


def fill(page: Any, form: Any, label: str, text: str) -> None:
    """Types into a field and leaves it."""
    form.locator("input").and_(form.get_by_label(label, exact=True)).fill(text)
    page.keyboard.press("Tab")


@pytest.mark.launches
def test_form_is_filled_in_mended_and_started(page: Any, lab: Lab, tiny_model_dir: Path) -> None:
    form = open_studio(page, lab, "start.ipynb")
    start = form.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_enabled()
    fill(page, form, "Model", str(tiny_model_dir))
    fill(page, form, "Steps", "two")
    alert = form.get_by_role("alert")
    expect(alert).to_contain_text("Error")
    expect(alert).to_contain_text("'two'")
    expect(start).to_be_disabled()
    expect(form.get_by_text("To start, fix 1 error:")).to_be_visible()
    expect(form.get_by_label("Steps", exact=True)).to_have_attribute("aria-invalid", "true")
    alert.get_by_role("button").click()
    expect(alert).to_have_count(0)
    fill(page, form, "Steps", "3")
    fill(page, form, "Log every", "1")
    expect(form.get_by_label("Configuration as YAML")).to_have_value(re.compile(r"max_steps: 3\n"))
    expect(form.get_by_text(re.compile("First minute with 2 changes"))).to_be_visible()
    form.get_by_label("Name", exact=True).fill("clicked")
    start.dblclick()
    expect(form.get_by_text(re.compile("^Started ")).first).to_be_visible(timeout=120_000)
    expect(start).to_be_disabled()
    page.locator(".llf-Monitor").get_by_text("finished").first.wait_for(timeout=120_000)
    runs = [path for path in (lab.home / "runs").iterdir() if path.name.endswith("-clicked")]
    assert len(runs) == 1
    assert "max_steps: 3" in (runs[0] / "config.yaml").read_text()


@pytest.mark.launches
def test_two_processes_are_chosen_trained_and_kept(page: Any, lab: Lab, tiny_model_dir: Path) -> None:
    form = open_studio(page, lab, "pair.ipynb")
    for label, text in {"Model": str(tiny_model_dir), "Steps": "3", "Processes": "2"}.items():
        fill(page, form, label, text)
    where = form.get_by_role("region", name="Where", exact=True)
    expect(where).to_contain_text('on="2 processes"')
    expect(where.get_by_label("Strategy", exact=True)).to_have_value("ddp")
    expect(form.get_by_role("region", name="Forecast")).to_contain_text("in each of 2 processes;")
    expect(where).to_contain_text("Saves time: each process computes its share of a batch.")
    expect(form.get_by_label("Configuration as YAML")).to_have_value(re.compile(r"num_processes: 2\n"))
    form.get_by_label("Name", exact=True).fill("pair")
    form.get_by_role("button", name="Start", exact=True).click()
    monitor = page.locator(".llf-Monitor")
    monitor.get_by_text("finished").first.wait_for()
    expect(monitor).to_contain_text("2 processes (DDP)")
    (run,) = (path for path in (lab.home / "runs").iterdir() if path.name.endswith("-pair"))
    steps = [json.loads(line) for line in (run / "examples.jsonl").read_text().splitlines()]
    assert [len(step["number"]) for step in steps] == [8, 8, 8]  # four of each process
    lab.save(page)
    page.reload()
    lab.settle(page)
    expect(page.locator(".llf-Studio").get_by_label("Processes", exact=True)).to_have_value("2")


TYPOS = {
    "Model": ("smollm2-135m-instrct", "Use smollm2-135m-instruct"),
    "Data set": ("llf_dmo", "Use llf_demo"),
    "Target modules": ("q_prj,v_proj", "Use q_proj,v_proj"),
    "Learning rate": ("50", "Set to 1e-4"),
    "Cutoff length": ("4", "Set to 2048"),
}


def test_names_that_do_not_exist_stand_beside_their_fields(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab)
    for label, (typo, fix) in TYPOS.items():
        fill(page, form, label, typo)
        form.get_by_role("button", name=fix, exact=True).click()
        expect(form.get_by_role("button", name=fix, exact=True)).to_have_count(0)


def test_link_in_the_sentence_leads_to_the_field(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab)
    fill(page, form, "Learning rate", "fast")
    form.get_by_role("button", name="Learning rate", exact=True).click()
    expect(form.get_by_label("Learning rate", exact=True)).to_be_focused()


def test_form_follows_what_is_pasted_and_text_follows_the_form(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab)
    yaml = form.get_by_label("Configuration as YAML")
    yaml.fill("dataset: llf_demo\nlora_rnak: 32\n")
    expect(form.get_by_role("alert")).to_contain_text("lora_rank")
    form.get_by_role("button", name="Rename to lora_rank").click()
    expect(form.get_by_label("LoRA rank", exact=True)).to_have_value("32")
    expect(form.get_by_role("alert")).to_have_count(0)
    fill(page, form, "LoRA rank", "64")
    expect(yaml).to_have_value(re.compile("lora_rank: 64"))
    form.get_by_role("button", name="Python", exact=True).click()
    expect(form.get_by_label("Configuration as Python")).to_contain_text('"lora_rank": 64')


def test_every_control_has_a_name_and_can_be_reached_by_keys(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab)
    form.get_by_role("button", name="more fields in Model").click()
    snapshot = form.aria_snapshot()
    controls = re.findall(r"- (textbox|combobox|checkbox|button)\b(.*)", snapshot)
    assert len(controls) > 30
    assert [line for line in controls if '"' not in line[1]] == []
    for name in ("Model", "Data", "Method", "Training", "Where"):
        expect(form.get_by_role("region", name=name)).to_have_count(1)
    form.get_by_label("Learning rate", exact=True).focus()
    page.keyboard.press("Tab")
    reached = page.evaluate("document.activeElement.dataset.llfKey")
    assert reached == "lr_scheduler_type"
    ring = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
    assert ring != "none"
    form.get_by_role("button", name="more fields in Training").click()
    expect(form.get_by_role("heading", name="Generation")).to_be_visible()
    assert form.evaluate(OUT_OF_PLACE) == []


def test_text_of_a_config_is_never_markup(page: Any, lab: Lab) -> None:
    evil = "<img src=x onerror=document.title='gone'>"
    form = open_studio(page, lab)
    fill(page, form, "Data set", evil)
    form.get_by_label("Configuration as YAML").fill(f'dataset: "{evil}"\n"{evil}": 1\n')
    expect(form.get_by_role("alert").first).to_contain_text("<img")
    assert form.locator("img").count() == 0


def test_a_reload_keeps_the_values_and_after_a_restart_a_key_brings_them_back(page: Any, lab: Lab, axe: Any) -> None:
    form = open_studio(page, lab, "reload.ipynb")
    fill(page, form, "LoRA rank", "48")
    expect(form.get_by_label("Configuration as YAML")).to_have_value(re.compile("lora_rank: 48"))
    lab.save(page)
    page.goto(lab.address("reload.ipynb").replace("&reset", ""))
    form = page.locator(".llf-Studio")
    form.get_by_label("LoRA rank", exact=True).wait_for(timeout=120_000)
    expect(form.get_by_label("LoRA rank", exact=True)).to_have_value("48")
    page.set_viewport_size({"width": 1600, "height": 1000})  # a column for the form, one for the start
    width = settled(page, form.get_by_role("region", name="Model", exact=True).bounding_box)["width"]
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }")
    expect(form.get_by_text("The kernel of this form has shut down.")).to_be_visible(timeout=120_000)
    expect(form.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    enabled = (  # what works in the page alone
        "form => [...form.querySelectorAll('button, input, select, textarea')].filter(one => one.checkVisibility() &&"
        " !one.disabled && !one.readOnly && one.ariaDisabled !== 'true').map(one => one.textContent)"
    )
    settled(page, lambda: form.evaluate(enabled), lambda found: found == ["YAML", "Python", "Copy", "Save…"])
    form.get_by_role("button", name="Python", exact=True).click()
    expect(form.get_by_label("Configuration as Python")).to_be_visible()
    # ipywidgets marks what has lost its kernel; the form stands as before
    settled(page, form.get_by_role("region", name="Model", exact=True).bounding_box, lambda box: box["width"] == width)
    assert form.evaluate(BEYOND) == []

    lab.settle(page)
    lab.run_cell(page, 0)
    rank, kept = form.get_by_label("LoRA rank", exact=True), form.get_by_role("group", name="Settings from earlier")
    restore = kept.get_by_role("button", name="Restore settings")
    restore.focus()  # waits for the new form
    expect(rank).to_have_value("8")  # what the cell says
    expect(kept.get_by_role("status")).to_have_text(re.compile(r"Your change from .* is kept: LoRA rank\."))
    assert axe(page, ".llf-Studio") == []
    page.keyboard.press("Enter")
    expect(rank).to_have_value("48")
    undo = kept.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    expect(kept.get_by_role("status")).to_have_text("1 setting restored.")
    page.keyboard.press("Enter")
    expect(rank).to_have_value("8")
    expect(restore).to_be_focused()


ODD = "[{'q': f'{n}?', 'gold_reply': f'{n}!', 'lang': '<b>en</b>'} for n in range(40)]"


def test_a_model_is_completed_by_keys_and_brings_its_template(page: Any, lab: Lab, axe: Any) -> None:
    form = open_studio(page, lab)
    field = form.get_by_role("combobox", name="Model", exact=True)
    options = form.get_by_role("listbox", name="Known values of Model").get_by_role("option")
    yaml = form.get_by_label("Configuration as YAML")
    field.fill("")
    field.press_sequentially("qwen2.5 7b ins")
    expect(options.first).to_contain_text("Qwen/Qwen2.5-7B-Instruct")
    expect(options.first).to_contain_text("7B · Apache-2.0")
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", options.first.get_attribute("id"))
    assert axe(page, ".llf-Studio") == []
    page.keyboard.press("Enter")
    expect(field).to_have_value("Qwen/Qwen2.5-7B-Instruct")
    expect(options).to_have_count(0)
    expect(yaml).to_have_value(re.compile(r"model_name_or_path: Qwen/Qwen2.5-7B-Instruct\n"))
    expect(form.get_by_label("Chat template", exact=True)).to_have_value("qwen")
    form.get_by_role("button", name="Use the tokenizer's own").click()
    expect(yaml).not_to_have_value(re.compile("template:"))

    field.fill("llama 3.3")
    expect(options.first).to_contain_text("gated")
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    expect(field).to_have_attribute("aria-expanded", "false")
    field.fill("llama 3.3 70b")
    options.first.click()
    expect(field).to_have_value("meta-llama/Llama-3.3-70B-Instruct")
    expect(form.get_by_text("is gated: its owner gives access", exact=False)).to_be_visible()
    expect(form.get_by_text("The license of meta-llama/Llama-3.3-70B-Instruct", exact=False)).to_be_visible()

    fill(page, form, "Model", "./a-folder-of-mine")  # any other name is taken as it is typed
    expect(options).to_have_count(0)
    expect(yaml).to_have_value(re.compile(r"model_name_or_path: ./a-folder-of-mine\n"))


def test_letters_typed_into_a_list_or_on_a_button_never_reach_the_notebook(page: Any, lab: Lab) -> None:
    form = open_studio(page, lab)
    cells = page.locator(".jp-Notebook .jp-Cell")
    stage = form.get_by_label("Stage", exact=True)
    stage.focus()
    for letter in "axd":  # insert a cell, cut this one, and with a second d delete it
        page.keyboard.press(letter)
        expect(stage).to_be_focused()
    form.get_by_role("button", name="more fields in Model").focus()
    for key in ("a", "x", "Enter"):
        page.keyboard.press(key)
    expect(form.get_by_role("button", name="Fewer fields in Model")).to_be_focused()
    expect(cells).to_have_count(1)


@pytest.mark.launches
def test_rows_of_the_cell_are_mapped_by_keys_and_trained(page: Any, lab: Lab, tiny_model_dir: Path) -> None:
    cell = f"""import llf_widgets as llf
rows = {ODD}
studio = llf.Studio({{"dataset": rows, "model_name_or_path": {str(tiny_model_dir)!r}, "max_steps": 2}})
studio"""
    form = open_studio(page, lab, "rows.ipynb", cell)
    data = form.locator("input").and_(form.get_by_label("Data set", exact=True))
    expect(data).to_have_value("40 rows from this cell")
    sample = form.get_by_role("region", name="First rows of the data set")
    expect(sample.locator("tbody tr")).to_have_count(3)
    expect(sample).to_contain_text("<b>en</b>")
    start = form.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_disabled()
    answer = form.get_by_label("Response", exact=True)
    expect(answer).to_have_value("gold_reply")
    answer.focus()
    page.keyboard.type("lang")
    expect(answer).to_have_value("lang")
    expect(answer).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(answer).to_have_value("gold_reply")
    form.get_by_role("button", name="Apply", exact=True).click()
    expect(form.get_by_text("Read as alpaca: prompt from q, response from gold_reply.")).to_be_visible()
    form.get_by_role("button", name="Python", exact=True).click()
    expect(form.get_by_label("Configuration as Python")).to_contain_text('"dataset": rows,')
    expect(start).to_be_enabled()
    form.get_by_label("Name", exact=True).fill("rows")
    start.click()
    page.locator(".llf-Monitor").get_by_text("finished").first.wait_for(timeout=120_000)
    (run,) = (path for path in (lab.home / "runs").iterdir() if path.name.endswith("-rows"))
    assert len(list((run / "data").glob("rows-*.parquet"))) == 1


def test_a_file_is_uploaded_and_a_bad_one_changes_nothing(page: Any, lab: Lab, tmp_path: Path) -> None:
    form = open_studio(page, lab)
    data = form.locator("input").and_(form.get_by_label("Data set", exact=True))
    good, bad = tmp_path / "mine.jsonl", tmp_path / "bad.json"
    good.write_text('{"instruction": "Hi", "output": "%s"}\n' % ("Yo" * 1000) * 1000)  # two pieces
    bad.write_text("[1,")
    with page.expect_file_chooser() as chooser:
        form.get_by_role("button", name="Upload a file for Data set").click()
    chooser.value.set_files(bad)
    expect(form.get_by_text("was not uploaded: it is not valid JSON")).to_be_visible()
    expect(data).to_have_value("llf_demo")
    with page.expect_file_chooser() as chooser:
        form.get_by_role("button", name="Upload a file for Data set").click()
    chooser.value.set_files(good)
    expect(data).to_have_value("mine.jsonl")
    expect(form.get_by_text("in the folder of the notebook: 1,000 rows.")).to_be_visible()
    expect(form.get_by_text("was not uploaded")).to_have_count(0)
    assert (lab.root / "mine.jsonl").read_bytes() == good.read_bytes()


@pytest.mark.launches
def test_start_says_so_before_the_kernel_answers_and_the_monitor_comes_into_view(
    page: Any, lab: Lab, tiny_model_dir: Path
) -> None:
    cell = f"""import llf_widgets as llf
studio = llf.Studio({{"dataset": "llf_demo", "model_name_or_path": {str(tiny_model_dir)!r}, "max_steps": 2}})
studio"""
    form = open_studio(page, lab, "sign.ipynb", cell, "1")
    asleep = page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt")
    expect(asleep).not_to_have_text("[*]:")
    start = form.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_enabled()
    form.get_by_label("Name", exact=True).fill("sign")
    lab.run_cell(page, 1, "import time; time.sleep(300)")
    expect(asleep).to_have_text("[*]:")
    # before the kernel has answered: what is on screen now is the front end's own word
    assert (
        start.evaluate("button => { button.focus(); button.click(); return button.textContent + button.ariaDisabled; }")
        == "Starting…true"
    )
    expect(start.or_(form.get_by_role("button", name="Starting…"))).to_be_focused()
    place = page.locator(".llf-Studio-monitor")
    expect(place).to_be_in_viewport(timeout=120_000)
    expect(asleep).to_have_text("[*]:", timeout=1)  # the click did not wait for the cell
    expect(page.locator(".llf-Monitor .llf-State").first).to_be_in_viewport(timeout=120_000)
    settled(page, place.bounding_box, lambda box: 0 <= box["y"] < 500)
    expect(form.get_by_text(re.compile("^Started ")).first).to_be_attached()
    expect(form.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.locator(".llf-Monitor").get_by_text("finished").first.wait_for(timeout=120_000)


def test_start_that_fails_takes_its_place_away_and_says_why(page: Any, lab: Lab) -> None:
    full = "import llf_core.launch as l\ndef launch(*_, **__): raise OSError('No space left')\nl.launch = launch"
    form = open_studio(page, lab, "fails.ipynb", f"{CELL.removesuffix('studio')}{full}\nstudio")
    start = form.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_enabled()
    start.click()
    expect(form.get_by_role("alert")).to_be_in_viewport(timeout=120_000)
    expect(form.get_by_role("alert")).to_contain_text("No space left")
    expect(page.locator(".llf-Studio-monitor")).to_have_count(0)
    expect(form.get_by_text("Starting…")).to_have_count(0)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_every_state_of_the_form_passes_axe_and_fits_a_narrow_window(
    page: Any, lab: Lab, axe: Any, theme: str, tiny_model_dir: Path
) -> None:
    given = f'{{"dataset": {ODD}, "model_name_or_path": {str(tiny_model_dir)!r}}}'
    cell = CELL.replace("Studio()", f"Studio({given})")
    lab.notebook("axe.ipynb", cell)
    lab.open(page, "axe.ipynb")
    set_theme(page, theme)
    lab.run_all(page)
    form = page.locator(".llf-Studio")
    form.get_by_role("region", name="First rows of the data set").wait_for(timeout=120_000)
    assert axe(page, ".llf-Studio") == []  # an error, a table, lists
    # Notebook 7 has no heading above it
    assert form.evaluate("form => form.querySelector('h1, h2, h3').tagName") == "H2"
    form.get_by_role("button", name="Apply", exact=True).click()
    expect(form.get_by_role("button", name="Start", exact=True)).to_be_enabled(timeout=120_000)
    form.get_by_role("button", name="Preview data").click()
    expect(form.get_by_role("article", name="Example 1")).to_be_visible(timeout=120_000)
    assert axe(page, ".llf-Studio") == []  # what was learned from
    form.get_by_label("Explain each field").check()
    for name in ("Model", "Data", "Method", "Training", "Where"):
        form.get_by_role("button", name=f"more fields in {name}").click()
        expect(form.get_by_role("button", name=f"Fewer fields in {name}")).to_be_visible()
    form.get_by_role("button", name="Sweep over several values…").click()
    form.get_by_role("button", name="Python", exact=True).click()
    form.get_by_label("Values of Learning rate").wait_for()
    assert axe(page, ".llf-Studio") == []
    page.set_viewport_size({"width": 820, "height": 1000})
    settled(page, form.bounding_box)
    assert axe(page, ".llf-Studio") == []
    assert form.evaluate(BEYOND) == []


OUT_OF_PLACE = """form => {
  const found = [];
  for (const fields of form.querySelectorAll('.llf-Section-fields')) {
    let before = -Infinity; // the keys' order is that of the eyes: no field stands above the one before it
    for (const one of fields.children) {
      const { top, height } = one.getBoundingClientRect();
      if (height && top < before - height) found.push(one.innerText);
      if (height) before = Math.max(before, top);
    }
    for (const unit of fields.querySelectorAll('.llf-unit'))
      if (unit.scrollWidth > unit.clientWidth + 1) found.push(`cut: ${unit.innerText}`);
  }
  return found;
}"""
"""Fields that stand above an earlier one, as under another heading, and units that are cut."""
BEYOND = """form => {
  const right = form.getBoundingClientRect().right + 1;
  return [...form.querySelectorAll('button, input, select, textarea, label, p, h3, h4, .llf-unit')]
    .filter(node => node.checkVisibility() && !node.closest('.llf-DatasetColumns-scroll, .llf-sr'))
    .filter(node => node.getBoundingClientRect().right > right)
    .map(node => node.id || node.textContent.slice(0, 40));
}"""
"""What stands beyond the form's right edge."""


@pytest.mark.launches
def test_tokens_come_into_view_below_the_form(page: Any, lab: Lab, tiny_model_dir: Path) -> None:
    config = {"dataset": "llf_demo", "model_name_or_path": str(tiny_model_dir), "cutoff_len": 256}
    form = open_studio(page, lab, "tokens.ipynb", f"import llf_widgets as llf\nllf.Studio({config!r})")
    page.set_viewport_size({"width": 1440, "height": 900})
    view = form.locator(".llf-Inspect")
    for _ in range(2):  # the second view takes the place of the first
        form.get_by_role("button", name="Inspect tokens").click()
        expect(view.get_by_role("heading", name="Totals")).to_be_in_viewport(timeout=120_000)
    expect(view).to_have_count(1)
    cutoffs = view.locator(".llf-Cutoffs")
    expect(cutoffs.get_by_role("button").first).to_be_visible()
    assert cutoffs.evaluate("table => table.offsetWidth <= table.parentElement.clientWidth")
