"""`llf validate`: what it says of a config, and its exit codes."""

import json

import pytest
import yaml

from llf_core.runs import list_runs


def test_validate_names_the_nearest_key_its_line_and_exits_2(llf, config):
    config.write_text(config.read_text() + "lora_rnak: 8\n")
    result = llf("validate", config, "--json")
    assert result.exit_code == 2
    (unknown,) = json.loads(result.output)["unknown"]
    assert unknown["key"] == "lora_rnak"
    assert "lora_rank" in unknown["message"]
    assert unknown["line"] == 8
    text = llf("validate", config)
    assert "lora_rank" in text.output
    assert "line 8" in text.output


@pytest.mark.parametrize(("name", "text"), [("c.yaml", "a: 1\nb: [1\nc: 2\n"), ("c.json", '{"a": 1,\n"b": [1\n')])
def test_the_line_of_a_broken_file_is_named_once(llf, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert llf("validate", tmp_path / name).output.count("line 3") == 1


def test_validate_accepts_a_good_config(llf, config):
    result = llf("validate", config)
    assert (result.exit_code, result.output.strip()) == (0, "The config is valid.")


def test_validate_takes_the_overrides_that_train_takes(llf, config):
    assert llf("validate", config, "lora_rank=16").exit_code == 0
    wrong = llf("validate", config, "lora_rank=-1")
    assert wrong.exit_code == 2
    assert "-1" in wrong.output


@pytest.mark.parametrize("command", ["validate", "train"])
def test_columns_that_fit_no_format_are_told_before_a_run_begins(llf, config, command):
    rows = [{"frage": f"Was ist {i}?", "antwort": f"Es ist {i}."} for i in range(20)]
    config.with_name("rows.json").write_text(json.dumps(rows))
    result = llf(command, config)
    assert result.exit_code == 2
    assert "columns frage, antwort, which match no known format" in result.output.replace("\n", " ")
    assert list_runs().total == 0
    fits = {"dataset_format": "alpaca", "dataset_columns": {"prompt": "frage", "response": "antwort"}}
    config.write_text(config.read_text() + yaml.safe_dump(fits))
    good = llf("validate", config)
    assert (good.exit_code, good.output.strip()) == (0, "The config is valid.")
