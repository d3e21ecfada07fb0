"""`llf parameters`: what a config trains, as a table and as JSON."""

import json

import yaml


def config_file(tmp_path, model, **keys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model_name_or_path": str(model), "dataset": "llf_demo", "lora_rank": 4} | keys))
    return str(path)


def test_a_table_with_the_layers_of_each_module(llf, tmp_path, tiny_model_dir):
    done = llf("parameters", config_file(tmp_path, tiny_model_dir, lora_target="q_proj"))
    assert done.exit_code == 0
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("self_attn.q_proj"))
    assert line.split()[1:] == ["adapter", "0-1", "9,216", "1,024"]  # 2 · (64 · 64 + 4 · 128), and 2 · 4 · 128
    assert "not reached 0-1" in done.stdout
    assert "1,024 of 97,600 parameters are trained (1.05 %)." in done.stdout


def test_json(llf, tmp_path, tiny_model_dir):
    done = llf("parameters", config_file(tmp_path, tiny_model_dir, finetuning_type="full"), "--json")
    told = json.loads(done.stdout)
    assert told["parameters"] == told["trained"] == sum(row["parameters"] for row in told["rows"])
    assert told["rows"][1]["states"] == {"trained": [[0, 1]]}


def test_only_model_and_method_are_needed(llf, tmp_path, tiny_model_dir):
    for keys in ({"dataset": None}, {"dataset": "missing.jsonl", "learning_rate": -1}):
        done = llf("parameters", config_file(tmp_path, tiny_model_dir, lora_target="q_proj", **keys))
        assert done.exit_code == 0
        assert "1,024 of 97,600 parameters are trained (1.05 %)." in done.stdout
    done = llf("parameters", config_file(tmp_path, tiny_model_dir, dataset=None, lora_rnak=8))
    assert done.exit_code == 2
    assert "lora_rnak" in done.stderr


def test_a_config_with_errors_ends_with_2(llf, tmp_path, tiny_model_dir):
    assert llf("parameters", config_file(tmp_path, tiny_model_dir, lora_rank=0)).exit_code == 2
