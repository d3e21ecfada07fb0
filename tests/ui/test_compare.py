"""Compare as a reader meets it: in both themes, wide and narrow, with controls that add, smooth and save."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.runs import create_run, status
from llf_core.runs.jsonl import encode
from tests.ui.conftest import set_theme, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ui.conftest import Lab

pytestmark = pytest.mark.browser


@pytest.fixture
def page(reused_page: Any) -> Any:
    """JupyterLab is loaded once for all tests here."""
    return reused_page


NAME = "smollm2-135m-instruct-sft-lora"
# The lowest contrast of the texts and lines of the charts against what is behind them, and of which element.
CONTRASTS = """() => {
  const channels = color => color.match(/[\\d.]+/g).map(Number);
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const onto = (color, ground) => {
    canvas.fillStyle = ground; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  const view = document.querySelector('.llf-Compare');
  let behind = view;
  const empty = element => /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(element).backgroundColor);
  while (behind && empty(behind)) behind = behind.parentElement;
  const ground = getComputedStyle(behind).backgroundColor;
  const ratio = color => {
    const [a, b] = [light(onto(color, ground)), light(onto('rgba(0,0,0,0)', ground))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  };
  const found = [];
  for (const text of view.querySelectorAll('.js-plotly-plot text')) {
    if (text.textContent.trim()) found.push([ratio(getComputedStyle(text).fill), text.textContent]);
  }
  for (const line of view.querySelectorAll('.js-plotly-plot .js-line')) {
    const thin = getComputedStyle(line.closest('.trace')).opacity === '0.4';
    if (!thin) found.push([ratio(getComputedStyle(line).stroke), 'line']);
  }
  for (const line of view.querySelectorAll('thead path')) found.push([ratio(getComputedStyle(line).stroke), 'sample']);
  return {lowest: found.sort((a, b) => a[0] - b[0])[0], count: found.length};
}"""


# The chart of the training losses, in `plot`.
TRAINING = (
    "const plot = document.querySelector('.llf-Compare .js-plotly-plot');"
    " const chart = plot.layout.meta.charts.find(({title}) => title === 'Training loss');"
)


def written(home: Path, rate: float, *, name: str = NAME, floor: float = 1e-4) -> str:
    """A finished run whose losses reach over some powers of ten; its id."""
    config = f"stage: sft\nmodel_name_or_path: org/tiny\ndataset: demo\nlearning_rate: {rate}\n"
    folder = create_run(config, name, home)
    lines = []
    for step in range(1, 61):
        values = {"loss": 1000 * rate * math.exp(-step / 6) + floor * (1 + step % 3), "tokens": 900 * step}
        values |= {"tokens_per_second": 800.0 + step % 7, "memory": 1.6e9, "learning_rate": rate}
        lines.append({"step": step, "time": 1.7e9 + 2 * step, "attempt": 1, "values": values})
        if step % 15 == 0:
            held_out = {"eval_loss": floor * (2 + 10 / step)}
            lines.append({"step": step, "time": 1.7e9 + 2 * step, "attempt": 1, "values": held_out})
    folder.metrics.write_bytes(b"".join(map(encode, lines)))
    with folder.samples.open("w") as file:
        for of, text in (("base", "Yes."), ("tuned", f"Seven, at {rate}.")):
            record = {"step": 60, "time": 1.7e9, "attempt": 1, "kind": "answer", "prompt": "2 + 5?", "of": of}
            file.write(json.dumps(record | {"text": text}) + "\n")
    status.update(folder, state="finished", step=60, total=60)
    return folder.id


def is_readable(contrasts: dict[str, Any]) -> bool:
    """Whether all texts and lines can be read; not until the charts are drawn in the colours of a new theme."""
    return contrasts["count"] > 20 and contrasts["lowest"][0] >= 4.5


@pytest.fixture
def compared(page: Any, lab: Lab) -> tuple[Any, list[str]]:
    """A notebook that compares two runs of one name, with a third one to add."""
    ids = [written(lab.home, 1e-3), written(lab.home, 3e-3, floor=1e-3), written(lab.home, 1e-3, name="another one")]
    lab.notebook("compare.ipynb", f"import llf_widgets as llf\nllf.Compare({ids[:2]!r})")
    lab.open(page, "compare.ipynb")
    lab.run_all(page)
    expect(page.locator(".llf-Compare .js-plotly-plot .main-svg").first).to_be_visible(timeout=120_000)
    return page.locator(".llf-Compare"), ids


def test_it_can_be_read_in_both_themes(
    compared: tuple[Any, list[str]], page: Any, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    view, _ = compared
    for checkbox in ("log scale", "every step"):
        view.get_by_label(checkbox).check()
    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        settled(page, lambda: page.evaluate(CONTRASTS), is_readable)
        assert axe(page, ".llf-Compare") == []


def test_runs_are_told_apart_by_what_differs(compared: tuple[Any, list[str]], page: Any) -> None:
    view, _ = compared
    table = view.get_by_role("table", name="Runs side by side")
    expect(table.get_by_role("columnheader").nth(0)).to_contain_text("lr 1e-3")
    expect(table.get_by_role("columnheader").nth(1)).to_contain_text("lr 3e-3")
    ends = view.locator(".js-plotly-plot .annotation-text")
    expect(ends.filter(has_text=re.compile("^lr 1e-3 "))).to_have_count(2)
    expect(ends.filter(has_text=re.compile("^lr 3e-3 "))).to_have_count(2)


def test_a_logarithmic_axis_has_marks_that_can_be_read(compared: tuple[Any, list[str]], page: Any) -> None:
    view, _ = compared
    view.get_by_label("log scale").check()
    page.wait_for_function(f"() => {{ {TRAINING} return plot._fullLayout[chart.yaxis].type === 'log'; }}")
    ticks = page.evaluate(f"() => {{ {TRAINING} return chart.y + 'tick'; }}")
    marks = view.locator(f".js-plotly-plot .{ticks} text")
    expect(marks.first).to_be_visible()
    powers = {"1e-4", "1e-3", "3e-3", "0.001", "0.01", "0.1", "1", "10"}
    settled(page, marks.all_text_contents, lambda texts: 3 <= len(texts) <= 6 and set(texts) <= powers)
    boxes = [mark.bounding_box() for mark in marks.all()]
    tops = sorted((box["y"], box["height"]) for box in boxes)
    assert all(first + height <= second for (first, height), (second, _) in pairwise(tops))


def test_the_pointer_reads_numbers_as_they_are_written_elsewhere(compared: tuple[Any, list[str]], page: Any) -> None:
    view, _ = compared
    chart = view.locator(".js-plotly-plot")
    chart.scroll_into_view_if_needed()
    find = (
        f"() => {{ {TRAINING} const {{[chart.xaxis]: x, [chart.yaxis]: y}} = plot._fullLayout;"
        " const line = plot.data.find(one => one.xaxis === chart.x), box = plot.getBoundingClientRect();"
        " return [box.left + x._offset + x.d2p(line.x[19]), box.top + y._offset + y.d2p(line.y[19])]; }"
    )
    page.mouse.move(*settled(page, lambda: page.evaluate(find)))
    tip = chart.locator(".hoverlayer .hovertext")
    expect(tip).to_contain_text("step 20: ")
    expect(tip).to_contain_text("smoothed over 10 steps")
    expect(tip).to_contain_text("logged: 0.0360")


def test_a_run_is_added_and_removed_and_the_page_is_saved(compared: tuple[Any, list[str]], page: Any) -> None:
    view, ids = compared
    table = view.get_by_role("table", name="Runs side by side")
    view.get_by_label("Add a run").select_option(ids[2])
    expect(table.get_by_role("columnheader")).to_have_count(3)
    expect(table).to_contain_text("another one")
    expect(view.locator(".js-plotly-plot .annotation-text", has_text="another one")).to_have_count(2)
    with page.expect_download() as download:
        view.get_by_role("button", name="Save as HTML").click()
    assert download.value.suggested_filename == "llf-compare.html"
    saved = download.value.path().read_text()
    assert saved.startswith("<!doctype html>")
    assert "another one" in saved
    assert "data:image/png;base64," in saved
    view.get_by_role("button", name="Remove another one").click()
    expect(table.get_by_role("columnheader")).to_have_count(2)


def test_the_reader_chooses_what_is_smoothed(compared: tuple[Any, list[str]], page: Any) -> None:
    view, _ = compared
    title = view.locator(".js-plotly-plot .annotation-text", has_text="Training loss")
    expect(title).to_have_text("Training loss, smoothed over 10 steps")
    view.get_by_label("Smoothing").select_option("30 steps")
    expect(title).to_have_text("Training loss, smoothed over 30 steps")
    expect(view.get_by_role("rowheader", name="Training loss, smoothed over 30 steps")).to_be_visible()
    view.get_by_label("Smoothing").select_option("none")
    expect(title).to_have_text("Training loss")
    expect(view.get_by_role("rowheader", name="Training loss, smoothed")).to_have_count(0)


def test_the_charts_stand_beside_the_table_where_there_is_room(compared: tuple[Any, list[str]], page: Any) -> None:
    boxes = (
        "const [table, curves] = ['.llf-Compare-scroll', '.llf-Compare-curves']"
        ".map(one => document.querySelector(one).getBoundingClientRect());"
    )
    page.set_viewport_size({"width": 1440, "height": 900})
    page.wait_for_function(
        f"() => {{ {boxes} return table.right <= curves.left && Math.abs(table.top - curves.top) < 2; }}"
    )
    page.set_viewport_size({"width": 820, "height": 900})
    page.wait_for_function(f"() => {{ {boxes} return table.bottom <= curves.top; }}")
    page.wait_for_function(  # the charts are drawn anew after the page has moved them
        "() => { const view = document.querySelector('.llf-Compare'), plot = view.querySelector('.main-svg');"
        " const over = plot.getBoundingClientRect().right - view.getBoundingClientRect().right;"
        " return Math.max(over, view.scrollWidth - view.clientWidth) <= 1; }"
    )


def test_a_reloaded_page_shows_what_held(compared: tuple[Any, list[str]], lab: Lab, page: Any) -> None:
    view, ids = compared
    view.get_by_label("Add a run").select_option(ids[2])
    expect(view.get_by_role("columnheader", name="another one").first).to_be_visible()
    lab.save(page)
    page.reload()
    lab.settle(page)
    expect(page.locator(".llf-Compare .js-plotly-plot .annotation-text", has_text="another one")).to_have_count(
        2, timeout=120_000
    )


def test_a_group_of_runs_is_one_column_and_a_line_with_a_band(
    page: Any, lab: Lab, axe: Callable[..., list[dict[str, Any]]]
) -> None:
    rates = (1e-3, 2e-3, 3e-3)
    ids = [written(lab.home, rate, name=f"lora seed={seed}", floor=rate / 10) for seed, rate in enumerate(rates, 1)]
    other = written(lab.home, 5e-3, name="full", floor=1e-3)
    lab.notebook("groups.ipynb", f"import llf_widgets as llf\nllf.Compare({ {'LoRA': ids, 'full': other}!r})")
    lab.open(page, "groups.ipynb")
    lab.run_all(page)
    view = page.locator(".llf-Compare")
    expect(view.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=120_000)
    heads = view.get_by_role("table", name="Runs side by side").get_by_role("columnheader")
    expect(heads).to_have_count(2)
    expect(heads.first).to_contain_text("3 runs")
    row = view.get_by_role("row", name="Evaluation loss, best")
    expect(row.get_by_role("cell").first).to_contain_text("to")
    expect(view.locator(".llf-Compare-curves")).to_contain_text("from the lowest to the highest run")
    tones: list[str] = []
    bands = (
        "() => [...document.querySelectorAll('.llf-Compare .js-fill')].map(path => {"
        " const style = getComputedStyle(path); const box = path.getBBox();"
        " return [style.fill, Number(style.fillOpacity), box.width > 20 && box.height > 5]; })"
    )

    def are_drawn(found: list[Any]) -> bool:
        """A band of the evaluation and one of the training loss, in the colour of the theme."""
        return len(found) == 2 and all(
            large and 0.1 < opacity < 0.3 and tone not in tones for tone, opacity, large in found
        )

    for name in ("Light", "Dark"):
        set_theme(page, f"JupyterLab {name}")
        seen = settled(page, lambda: page.evaluate(bands), are_drawn)
        tones += [tone for tone, *_ in seen]
        settled(page, lambda: page.evaluate(CONTRASTS), lambda found: found["lowest"][0] >= 4.5)
        assert axe(page, ".llf-Compare") == []
    heads.first.get_by_role("button").click()
    expect(heads).to_have_count(1)
    expect(view.locator(".llf-Compare-curves")).not_to_contain_text("lowest")
