"""What a resumed attempt says about the losses that it repeats."""

import math

import pytest

from llf_core.runs import RunReader, RunWriter, create_run
from llf_core.training.metrics_callback import ResumeCheck


@pytest.mark.parametrize(
    ("logged", "made", "exact", "largest", "said"),
    [
        (1.0, 1.0, True, 0.0, ""),
        (1.0, 1.0005, False, 0.0005, ""),
        (2.0, 1.0, False, 0.5, "differs from the log by up to 50 %: "),
        (math.nan, math.nan, True, 0.0, ""),
        (1.0, math.nan, False, None, "differs from the log in which losses are finite: "),
        (math.inf, 1.0, False, None, "differs from the log in which losses are finite: "),
    ],
)
def test_losses_are_compared_also_where_one_is_not_finite(llf_home, logged, made, exact, largest, said):
    folder = create_run("model_name_or_path: m", "m-sft-lora")
    writer = RunWriter(folder)
    writer.metric(4, {"loss": 3.0})
    writer.metric(5, {"loss": logged})
    told = ResumeCheck(folder, writer, 4, tolerance=1e-3).compare(5, made)
    assert said in told
    assert bool(told) == bool(said)
    (receipt,) = (event for event in RunReader(folder).events() if event["type"] == "receipt")
    assert receipt["exact"] is exact
    assert receipt.get("largest") == (None if largest is None else pytest.approx(largest))
