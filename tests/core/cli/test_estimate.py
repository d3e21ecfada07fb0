"""`llf estimate --on`: cards in place of this machine."""

import json


def test_cards_in_a_table(llf, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_name_or_path: meta-llama/Llama-3.1-8B\ndataset: llf_demo\nfinetuning_type: full\nbf16: true\n"
    )
    told = llf("estimate", config, "--on", "8 x H100 80GB", "--on", "4090", "strategy=fsdp2")
    assert told.exit_code == 0, told.output
    head, first, second = told.stdout.strip().splitlines()
    assert head.split() == ["place", "memory", "usable", "fits", "step", "tokens/s", "waiting"]
    assert first.startswith("8 x H100 80GB")
    assert second.startswith("1 x RTX 4090 24GB")
    assert " yes " in first
    assert " no " in second
    found = json.loads(llf("estimate", config, "--on", "8 x H100 80GB", "strategy=fsdp2", "--json").stdout)
    assert found["processes"] == 8
    by_name = {one["strategy"]: one for one in found["strategies"]}
    assert by_name["ddp"]["memory"]["optimizer"] == 8 * by_name["fsdp2"]["memory"]["optimizer"]
    assert found["memory"] == by_name["fsdp2"]["memory"]


def test_cards_that_nobody_knows_are_a_sentence(llf, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("dataset: llf_demo\n")
    told = llf("estimate", config, "--on", "8 x Z9")
    assert "Expected a text such as 8 x H100 80GB" in str(told.exception)
