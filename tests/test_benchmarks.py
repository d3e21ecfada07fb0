"""What is claimed in docs/benchmarks.md follows from stored runs, and these from the settings that lie beside them."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import dpo, gpu_cells, pairs, ratios, report, report_pairs, results
from benchmarks.contender import SETTINGS, settings_file, settings_hash
from benchmarks.runners.record import real_tokens, trained_tokens
from benchmarks.sft import GROUPS, ROWS

MEASURED = {**GROUPS, "dpo": dpo.NAMES}


def run(contender, number, steps, peak=4e9):
    return {"contender": contender, "round": number, "steps": steps, "peak_bytes": peak, "first_step_s": 5.0}


def steps(seconds, tokens):
    slow = [[9.0, tokens, tokens // 2, 2.0]] * ratios.LEFT_OUT
    return slow + [[seconds, tokens, tokens // 2, 1.5]] * 4


def two_rounds():
    rounds = [
        run("llf", 0, steps(1.0, 1000)), run("llamafactory-default", 0, steps(3.0, 900)),
        run("llf", 1, steps(2.0, 1000)), run("llamafactory-default", 1, steps(4.0, 1000)),
    ]  # fmt: skip
    packed = [
        run("llf-packed", 0, steps(1.5, 1000), 1e9), run("llamafactory-best", 0, steps(3.0, 1000), 2e9),
        {"contender": "matmuls", "round": 0, "seconds": 0.5},
    ]  # fmt: skip
    return {"sft": {"runs": rounds}, "packed": {"runs": packed}}


def test_ratios_are_made_within_rounds_without_the_first_steps():
    medians, ranges = ratios.summary(two_rounds())
    # 1000/1.0 against 900/3.0 is 10/3; 1000/2.0 against 1000/4.0 is 2.
    assert ranges["sft_vs_llamafactory_default"]["rounds"] == [3.333, 2.0]
    assert medians == {
        "sft_vs_llamafactory_default": 2.667,
        "sft_vs_llamafactory_best": 2.0,
        "memory_vs_llamafactory_best": 0.5,
        "step_vs_matmuls": 3.0,
    }


def test_a_round_in_which_one_side_did_not_run_makes_no_ratio():
    groups = two_rounds()
    groups["sft"]["runs"] = [one for one in groups["sft"]["runs"] if (one["contender"], one["round"]) != ("llf", 1)]
    assert ratios.summary(groups)[1]["sft_vs_llamafactory_default"]["rounds"] == [3.333]


def test_held_out_losses_of_those_that_are_compared_are_compared():
    losses = {"untrained": 3.0, "llf": 2.0, "peft": 1.98, "llf-packed": 1.8, "trl": 1.81}
    assert ratios.disagreement(losses) == pytest.approx(2.0 / 1.98 - 1)


def test_padding_of_packed_rows_is_not_counted():
    assert real_tokens({"input_ids": [5, 6, 7, 0, 0], "attention_mask": [1, 1, 2, 0, 0]}) == 3
    assert real_tokens({"input_ids": [5, 6, 7]}) == 3


def test_of_a_pair_both_rows_are_counted_whoever_made_it():
    factory = {"chosen_input_ids": [5, 6, 7], "rejected_input_ids": [5, 6, 8, 9]}
    assert real_tokens(factory) == real_tokens({"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8, 9]}) == 7
    labels = torch.tensor([[-100, -100, 7, -100], [-100, -100, 8, 9]])
    assert trained_tokens({"labels": labels}) == trained_tokens({"completion_mask": (labels != -100).long()}) == 3


def preference_runs():
    """Four pairs a step, two steps that count; ours asks its reference once, in 10 s, and theirs in every step."""
    ours = run("llf-dpo", 0, steps(1.0, 1300)[:5]) | {"reference_s": 10.0}
    theirs = run("trl-dpo", 0, steps(4.0, 2048)[:5])
    theirs["steps"][1] = [9.0, 2048, 1024, 2.004]
    later = [run("llf-dpo", 1, steps(1.0, 1300)[:5]) | {"reference_s": 20.0}, run("trl-dpo", 1, steps(2.0, 2048)[:5])]
    return {"runs": [ours, theirs, *later, {"contender": "matmuls", "round": 0, "seconds": 0.7}]}


def test_what_a_reference_was_asked_before_is_shared_by_all_steps():
    ours = preference_runs()["runs"][0]
    assert ratios.with_reference(ours, 1) == 1.0 + 10.0 / 5
    assert ratios.with_reference(ours, 4) == 1.0 + 10.0 / 20
    assert ratios.beside(preference_runs(), "llf-dpo", ratios.step_seconds) == {"llf-dpo": 1.0, "trl-dpo": 3.0}
    assert ratios.summary({"dpo": preference_runs()})[0] == {"dpo_vs_trl": 3.0, "dpo_step_vs_matmuls": 1.429}


def test_losses_of_the_first_steps_are_compared_one_by_one():
    first = ratios.first_losses(preference_runs())
    assert first == {"llf-dpo": [2.0, 2.0, 2.0, 1.5, 1.5], "trl-dpo": [2.0, 2.004, 2.0, 1.5, 1.5]}
    assert ratios.distances(first, "llf-dpo") == {"trl-dpo": pytest.approx(0.004)}


def test_the_section_on_pairs_tells_speeds_with_and_without_the_reference_and_losses():
    held = {name: {"llf-dpo": value, "trl-dpo": value * 1.01} for name, value in
            (("held_out", 0.6), ("margins", 0.3), ("accuracies", 0.75))}  # fmt: skip
    rows = {"rows": 20, "data": "some", "prompt": 192, "answer": 64, "held_out": 32}
    exact = {"llf-dpo": [0.69, 0.5], "trl-dpo": [0.69, 0.50002]}
    text = report_pairs.text(preference_runs() | held | {"rows": rows, "exact": exact})
    assert "20 pairs of `some`, 4 a step" in text
    # Times: 4/1 and 2/1; with ten seconds and twenty over five steps 4/3 and 2/5; over fifteen 4/(5/3) and 2/(7/3).
    assert "| 3.000 | 2.000 to 4.000 | **3.00** |  | 3.000 | 1.63 | 3.000 | 0.87 |" in text
    assert "the losses of the first 2 steps are at most 2.0e-05 from LLF's" in text
    assert "they are at most 0.004 from it" in text
    assert "differ from LLF's by at most\n1.00 %" in text


def test_texts_are_cut_to_tokens_and_filled_up_with_those_after_them(tiny_tokenizer):
    texts = ["What is that?", "A tree.", "No, two of them stand there."]
    made = pairs.beginning(texts, 0, 20, tiny_tokenizer)
    assert len(tiny_tokenizer.encode(made, add_special_tokens=False)) == 20
    assert "\n\n".join(texts).startswith(made)
    assert made.startswith("What is that?\n\nA")


def test_a_group_is_merged_and_the_others_stay(tmp_path):
    file = tmp_path / "sft.json"
    for name, group in two_rounds().items():
        results.store(file, name, group)
    decode = [{"contender": who, "round": 0, "seconds": s} for who, s in (("llf", 2.0), ("transformers", 3.0))]
    results.store(file, "decode", {"runs": decode})
    stored = json.loads(file.read_text())
    assert stored["ratios"]["decode_vs_generate"] == 1.5
    assert stored["ratios"]["sft_vs_llamafactory_best"] == 2.0
    assert stored["groups"]["sft"] == two_rounds()["sft"]


def test_every_contender_has_its_settings():
    named = [name for group in ROWS for name in GROUPS[group]]
    named += [file for file, _ in gpu_cells.FILES.values() if file]
    named += dpo.NAMES
    assert {settings_file(name) for name in named} == set(SETTINGS.glob("*.yaml"))


def test_claims_are_of_groups_and_contenders_that_are_measured():
    for name, claim in ratios.CLAIMS.items():
        members = (*MEASURED[claim.group], "matmuls")
        assert claim.above[0] in members, name
        assert claim.below[0] in members, name


def test_stored_ratios_and_hashes_are_those_of_the_stored_runs_and_files():
    for file in (results.RESULTS, results.PAIRS):
        stored = results.read(file)
        medians, ranges = ratios.summary(stored["groups"])
        assert (stored.get("ratios", {}), stored.get("ranges", {})) == (medians, ranges)
    for group in results.everything()["groups"].values():
        for name, settings in group.get("settings", {}).items():
            assert settings["sha256"] == settings_hash(name), f"{name}.yaml has changed since it was measured"


def test_the_page_is_made_of_the_stored_results():
    stored = results.everything()
    written = report.PAGE.read_text() if report.PAGE.exists() else ""
    assert written == (report.page(stored) if stored["groups"] else "")


def test_rounds_are_added_only_to_what_was_measured_of_the_same(tmp_path):
    file = tmp_path / "sft.json"
    with pytest.raises(SystemExit, match="no rounds of sft"):
        results.continued(file, "sft", {"code": "a"})
    results.store(file, "sft", {"code": "a", "runs": []})
    assert results.continued(file, "sft", {"code": "a"}) == {"code": "a", "runs": []}
    with pytest.raises(SystemExit, match="of another code"):
        results.continued(file, "sft", {"code": "b"})


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_quick_bench_runs_every_group(request):
    """Installs LLaMA-Factory where it is not there yet, 2 GB, and keeps the embedded model for the next time."""
    stored = results.ROOT / "build" / "bench" / "sft.json"
    stored.unlink(missing_ok=True)
    environment = os.environ | {"LLF_HOME": str(request.config.cache.mkdir("llf"))}
    command = [sys.executable, "-m", "benchmarks.sft", "--quick"]
    done = subprocess.run(command, cwd=results.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    groups = json.loads(stored.read_text())["groups"]
    assert {name: {run["contender"] for run in group["runs"]} - {"matmuls"} for name, group in groups.items()} == {
        name: set(contenders) for name, contenders in GROUPS.items()
    }
