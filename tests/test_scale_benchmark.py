"""docs/scale.md is that of the code, its forecasts of memory hold, and its fit finds what a step is made of."""

import pytest

from benchmarks import scale
from benchmarks.estimate_peaks import GOAL
from llf_core.estimate.strategies import LOOPBACK


def test_the_page_is_that_of_the_code() -> None:
    assert scale.PAGE.read_text() == scale.page()


def test_peaks_of_several_processes_are_forecast_within_the_goal() -> None:
    errors = {}
    for run in scale.stored()["runs"]:
        parts = scale.forecast(run).memory()[0]
        assert parts is not None
        errors[run["model"], run["contender"], run["processes"]] = parts.total / run["peak"] - 1
    assert {(name, count) for _, name, count in errors} == set(scale.CASES)
    assert {key: error for key, error in errors.items() if abs(error) > GOAL} == {}


def test_the_link_of_this_machine_is_the_fitted_one() -> None:
    found = scale.fit(scale.stored()["runs"])
    assert pytest.approx(found.bandwidth, rel=0.02) == LOOPBACK.bandwidth
    assert pytest.approx(found.hop, rel=0.02) == LOOPBACK.hop


def test_a_fit_finds_the_numbers_that_times_were_made_of() -> None:
    true = scale.Fit({"tiny": 0.25, scale.MODEL: 3.0}, bandwidth=2e9, hop=1e-3)
    runs = [{"contender": name, "model": model, "processes": count} for model in true.compute
            for name, count in scale.CASES]  # fmt: skip
    found = scale.fit([run | {"seconds": [99.0, true.seconds(run), 98.0]} for run in runs])
    assert found.compute == pytest.approx(true.compute, rel=1e-6)
    assert (found.bandwidth, found.hop) == pytest.approx((2e9, 1e-3), rel=1e-6)
    four = {"contender": "ddp", "model": "tiny", "processes": 4}
    sent, hops = scale.amounts(four)
    step = scale.forecast(four).step
    assert step is not None
    gradients = 2 * step.trained
    assert (sent, hops) == pytest.approx((2 * gradients * 3 / 4, 6 * -(-gradients // (25 << 20))))
    assert true.seconds(four) == pytest.approx(2 * (0.25 + sent / 2e9 + hops * 1e-3))  # on two cores


def test_what_breaks_first_is_said_of_each_model() -> None:
    told = scale.breaks_first().splitlines()
    assert [line.partition("**")[2].partition(".**")[0] for line in told] == list(scale.LARGE)
    first = ["batch", "batch", "gathering"]
    assert all(f"{what} breaks first" in line for what, line in zip(first, told, strict=True))
    assert all("the first process holds all" in line for line in told)
