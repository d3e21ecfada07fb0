"""Notebooks that are opened without a kernel: every view shows what it was, and no line of an error."""

from __future__ import annotations

import json

import nbformat
import pytest
from playwright.sync_api import expect

from llf_core.runs import RunWriter, create_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def saved(lab, tmp_path_factory):
    """The outputs of a Studio, a Compare and an Inspect, as their kernel saved them."""
    from nbclient import NotebookClient

    folder = create_run("model_name_or_path: m\nlearning_rate: 0.001\n", "one", lab.home)
    writer = RunWriter(folder)
    for step in (1, 2, 3):
        writer.metric(step, {"loss": 2.0 - step / 10})
    writer.close("finished")
    rows = [{"instruction": "Say hi.", "output": "Hi."}]
    environment = {"LLF_HOME": str(lab.home), "HF_HUB_OFFLINE": "1"}
    cells = [
        f"import os\nos.environ |= {environment!r}\nimport llf_widgets as llf\nllf.Studio()",
        f"llf.Compare([{folder.id!r}])",
        f"view = llf.Inspect({{'dataset': {json.dumps(rows)}, 'model_name_or_path': 'nowhere/at-all'}})\nview",
        "view.wait()",
        f"llf.Examples({folder.id!r})",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        book, timeout=240, startup_timeout=240, kernel_name="python3", allow_errors=True, store_widget_state=False
    ).execute()
    book.metadata["kernelspec"] = {"name": "nowhere", "display_name": "gone", "language": "python"}
    nbformat.write(book, lab.root / "saved-views.ipynb")
    return book


@pytest.mark.parametrize("app", ["lab", "notebooks"])
def test_every_view_shows_what_it_was(page, lab, saved, app):
    page.goto(lab.address("saved-views.ipynb", app))
    outputs = page.locator(".llf-SavedView")
    expect(outputs).to_have_count(4, timeout=120_000)
    expect(outputs.nth(0)).to_contain_text("model_name_or_path")
    expect(outputs.nth(1).locator("img")).to_be_visible(timeout=120_000)
    expect(outputs.nth(1)).to_contain_text("1.7")
    expect(outputs.nth(2)).to_contain_text("Inspect")
    expect(outputs.nth(3)).to_contain_text("to see the rows of the run")
    for line in ("Error displaying widget", "Loading widget"):
        expect(page.get_by_text(line).locator("visible=true")).to_have_count(0)


def test_other_hosts_are_given_html_without_scripts(saved):
    from nbconvert import HTMLExporter

    for cell in saved.cells:
        for output in cell.outputs:
            if "data" in output and "text/html" in output["data"]:
                assert "<script" not in output["data"]["text/html"]
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(saved)
    assert "model_name_or_path" in page
    assert "Error displaying widget" not in page
    assert 'class="llf-Static"' in page


def test_a_form_is_there_after_a_reload_and_its_run_is_in_the_saved_notebook(page, lab, tiny_model_dir, tmp_path):
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = {
        "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "max_steps": 3,
        "per_device_train_batch_size": 2, "logging_steps": 1,
    }  # fmt: skip
    path = lab.notebook("studio-run.ipynb", f"import llf_widgets as llf\nllf.Studio({config!r})")
    page.on("dialog", lambda dialog: dialog.accept())
    lab.open(page, path.name)
    lab.run_cell(page, 0)
    expect(page.locator(".llf-Studio-grid")).to_be_visible(timeout=120_000)
    lab.save(page)
    page.reload()
    lab.settle(page)
    expect(page.locator(".llf-Studio-grid")).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator(".llf-Monitor .llf-State").first).to_have_text("finished", timeout=120_000)

    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells[0].outputs[0]"
        ".data['application/vnd.llf.view+json'].state === 'finished'"
    )
    lab.save(page)
    data = nbformat.read(path, 4).cells[0].outputs[0].data
    assert data["application/vnd.llf.view+json"]["view"] == "studio"
    assert data["application/vnd.llf.view+json"]["state"] == "finished"
    for text in (data["text/html"], data["text/plain"]):
        assert "finished" in text
        assert text.count("max_steps: 3") == 1
    assert 'class="llf-Static"' in data["text/html"]

    book = nbformat.read(path, 4)
    book.metadata["kernelspec"] = {"name": "nowhere", "display_name": "gone", "language": "python"}
    nbformat.write(book, lab.root / "studio-run-saved.ipynb")
    page.goto(lab.address("studio-run-saved.ipynb"))
    output = page.locator(".llf-SavedView")
    expect(output.locator("img")).to_be_visible(timeout=120_000)
    expect(output).to_contain_text("finished")
    expect(output).to_contain_text("max_steps: 3")
    expect(page.get_by_text("Error displaying widget").locator("visible=true")).to_have_count(0)


def test_a_comparison_follows_a_sweep_to_its_end_also_where_it_is_saved(page, lab, tiny_model_dir):
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(8)]
    config = {
        "model_name_or_path": str(tiny_model_dir), "dataset": rows, "max_steps": 3, "logging_steps": 1,
        "per_device_train_batch_size": 2, "save_strategy": "no",
    }  # fmt: skip
    sweep = f"llf.sweep({config!r} | {{'finetuning_type': name}}, {{'seed': [1]}}) for name in ('lora', 'full')"
    path = lab.notebook("sweep.ipynb", f"import llf_widgets as llf\nllf.Compare({{name: {sweep}}})")
    lab.open(page, path.name)
    lab.run_cell(page, 0)
    states = page.locator(".llf-Compare .llf-State")
    expect(states).to_have_text(["finished", "finished"], timeout=240_000)
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells[0].outputs[0].data['text/html']"
        ".split('finished').length === 3"
    )
    expect(page.locator(".llf-Compare")).to_have_count(1)
    lab.save(page)
    saved = nbformat.read(path, 4).cells[0].outputs[0].data["text/html"]
    assert saved.count("finished") == 2
    assert "data:image/png" in saved
