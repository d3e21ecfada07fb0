"""What is claimed of the methods follows from stored runs, and a run counts the bytes of its tensors."""

import json
import sys

import pytest

from benchmarks import method_claims, method_speed, report_methods, results
from benchmarks.methods import COMMON, METHODS, RESULTS, SHAPES, main

STORED = results.read(RESULTS)["groups"]


def run(method, peak, forecast=1.0, model="llama-1b", **more):
    counted = {"base": 1, "weights": 2, "gradients": 3, "optimizer": 4, "peak": peak, "forecast": forecast * peak}
    steps = [[9.0, 512, 500, 2.0], [2.0, 512, 500, 1.0], [4.0, 512, 500, 1.0]]
    return {"contender": method, "model": model, "steps": steps, "cpu": [9.0, 2.0, 4.0], "tokens": 512,
            "held_out": 2.5, **counted, **more}  # fmt: skip


def speed(name, number, seconds):
    return {"contender": name, "method": "badam", "round": number, "cpu": [9.0] * 2 + [seconds] * 4}


def test_claims_compare_peaks_bytes_forecasts_and_steps():
    runs = [run("full", 100), run("badam", 40, 1.08), run("badam", 44, 0.97), run("galore-layerwise", 50)]
    runs.append(run("qlora", 30, quantized_bytes=52, quantized_parameters=100))
    rounds = [speed("llf", 0, 1.0), speed("plain", 0, 2.0), speed("llf", 1, 3.0), speed("plain", 1, 2.0)]
    found = method_claims.claims({"memory": {"runs": runs}, "speed": {"runs": rounds}})
    assert [(round(one.figure, 4), one.must, one.reached) for one in found] == [
        (0.42, 0.45, True), (0.5, 0.45, False), (0.52, 0.6, True), (0.08, 0.1, True), (1.0, 1.0, True),
    ]  # fmt: skip
    assert method_claims.rest(runs[0]) == 100 - 1 - 2 - 3 - 4


def test_a_forecast_that_is_too_low_counts_as_one_that_is_too_high():
    (claim,) = method_claims.claims({"memory": {"runs": [run("lora", 100, 0.85)]}})
    assert claim.figure == pytest.approx(0.15)
    assert not claim.reached


def test_the_tables_have_a_line_for_each_method_and_contender():
    table = report_methods.memory_table({"full": [run("full", 2_000_000_000)], "lora": [run("lora", 500_000_000)]})
    assert table.splitlines()[2:] == [
        "| full | 2.00 | 1.00 | 0.00 | 0.00 | 0.00 | 2.00 | +0.0% | 171 | 2.500 |",
        "| lora | 0.50 | 0.25 | 0.00 | 0.00 | 0.00 | 0.50 | +0.0% | 171 | 2.500 |",
    ]
    (line,) = report_methods.speed_table([speed("llf", 0, 1.0), speed("plain", 0, 2.0)]).splitlines()[2:]
    assert line == "| badam | badam | 1.000 | 2.000 | **0.50** | 0.50 to 0.50 |"


def test_stored_runs_have_the_settings_that_lie_here_and_equal_tokens():
    memory = STORED["memory"]
    assert memory["common"] == COMMON
    assert memory["settings"] == METHODS
    for model, methods in method_claims.by_model(memory["runs"]).items():
        assert model in SHAPES
        tokens = {tuple(tuple(step[1:3]) for step in one["steps"]) for runs in methods.values() for one in runs}
        assert len(tokens) == 1, f"the methods of {model} were trained on different tokens"
        for runs in methods.values():
            for one in runs:
                assert one["checkpointing"]
                assert method_claims.rest(one) > 0
                assert one["trained"] <= one["weights"]


def test_stored_runs_reach_what_the_methods_are_taken_for():
    """BAdam and layer-wise GaLore in 0.45 of full fine-tuning's peak, 4 bits in 0.6 bytes, forecasts within 10 %."""
    found = method_claims.claims({"memory": STORED["memory"]})
    assert {one.must for one in found} == {0.45, 0.6, 0.1}
    assert [one.work for one in found if not one.reached] == []


def test_stored_speeds_are_of_the_settings_that_lie_here():
    for method, settings in STORED["speed"]["settings"].items():
        own = {name: {"file": file, "changes": changes} for name, (file, changes) in
               method_speed.contenders(method).items()}  # fmt: skip
        assert settings == json.loads(json.dumps(own))


@pytest.mark.long
def test_a_run_counts_its_weights_gradients_and_state(tmp_path, tiny_model_dir, monkeypatch):
    """Full fine-tuning has a gradient and two moments for each weight; BAdam those of one of two layers."""
    file = tmp_path / "methods.json"
    monkeypatch.setattr(sys, "argv", ["-m", "--quick", "--results", str(file), "--base", str(tiny_model_dir)])
    main()
    full, badam = json.loads(file.read_text())["groups"]["memory"]["runs"]
    assert full["contender"] == "full"
    assert full["gradients"] == 2 * full["trained"] <= full["weights"]
    assert full["optimizer"] == pytest.approx(2 * full["gradients"], rel=0.01)
    layer = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 256 + 2 * 128
    assert badam["gradients"] == 2 * layer
    assert badam["optimizer"] == 3 * 4 * layer
    assert badam["weights"] == full["weights"]
    assert [step[1] for step in badam["steps"]] == [step[1] for step in full["steps"]] == [512, 512]
    assert 0 < badam["peak"] <= full["peak"] * 1.2
