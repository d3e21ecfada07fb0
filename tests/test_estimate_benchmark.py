"""The forecasts in docs/estimate.md are those of the code, and within the goal of the paper's figures."""

import json
from types import SimpleNamespace

import pytest

from benchmarks import estimate, estimate_peaks, estimate_times, load_peaks, vision_peaks

KEYS = ("model", "contender", "length", "batch", "checkpointing")


@pytest.fixture(scope="module")
def cells() -> list[estimate.Cell]:
    return estimate.cells()


def test_every_figure_of_table_4_is_forecast_within_the_goal(cells: list[estimate.Cell]) -> None:
    errors = {(cell.model, cell.method): cell.error for cell in cells if cell.error is not None}
    assert len(errors) == 14
    assert {name: error for name, error in errors.items() if abs(error) > estimate.GOAL} == {}


def test_full_fine_tuning_of_13_b_does_not_fit(cells: list[estimate.Cell]) -> None:
    (cell,) = (cell for cell in cells if cell.paper is None)
    assert (cell.model, cell.method, cell.fits) == ("Llama2-13B", "Full", False)


def test_the_published_table_of_hardware_is_near_the_forecasts() -> None:
    found = estimate.published()
    assert len(found) == 20
    assert [one for one in found if abs(one[3] / 1e9 / one[2] - 1) > 0.2] == []
    cards = {(method, size): each for method, size, _, _, each in found}
    assert cards["Full (bf16 or fp16), 32 bits", "7B"] < 80e9 < cards["Full (bf16 or fp16), 32 bits", "30B"]


def test_page_and_stored_figures_are_those_of_the_code(cells: list[estimate.Cell]) -> None:
    assert estimate.PAGE.read_text() == estimate.page(cells)
    stored = json.loads(estimate.STORED.read_text())["cells"]
    assert [(row["model"], row["method"], row["weights"]) for row in stored] == [
        (cell.model, cell.method, cell.parts.weights) for cell in cells
    ]


def test_peaks_of_cpu_runs_are_forecast_within_the_goal() -> None:
    rows = estimate.peak_rows()
    errors = {tuple(run[name] for name in KEYS): total / run["peak"] - 1 for run, total in rows}
    assert len(errors) >= 20
    assert {run["model"] for run, _ in rows} == set(estimate_peaks.MODELS)
    assert {name: error for name, error in errors.items() if abs(error) > estimate_peaks.GOAL} == {}


def test_peaks_of_vision_models_are_forecast_within_the_goal() -> None:
    runs = vision_peaks.stored()
    assert {run["family"] for run in runs} == {"llava", "qwen2_5_vl", "gemma3"}
    assert {run["frozen"] for run in runs} == {True, False}
    assert [run for run in runs if abs(run["forecast"] / run["peak"] - 1) > estimate_peaks.GOAL] == []


def test_peaks_while_a_model_is_quantized_are_forecast_within_the_goal() -> None:
    runs = load_peaks.stored()
    assert {run["model"] for run in runs} == set(estimate_peaks.MODELS)
    assert [run for run in runs if abs(run["forecast"] / run["peak"] - 1) > estimate_peaks.GOAL] == []


def test_the_time_that_a_host_takes_is_a_share_of_the_time_in_which_something_ran() -> None:
    before = SimpleNamespace(user=10.0, system=2.0, idle=5.0, steal=1.0)
    after = SimpleNamespace(user=14.0, system=3.0, idle=50.0, steal=2.0)
    assert estimate_times.stolen(before, after) == pytest.approx(1 / 6)
    assert estimate_times.stolen(before, before) == 0
    assert estimate_times.stolen(SimpleNamespace(user=1.0, system=1.0), SimpleNamespace(user=2.0, system=1.0)) == 0
