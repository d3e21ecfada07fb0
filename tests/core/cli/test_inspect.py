"""`llf inspect`: what the loss sees, and the file of examples."""

import json


def test_inspect_shows_what_is_trained(llf, config):
    result = llf("inspect", config, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["examples"] == 20
    assert 0 < report["trained_tokens"] < report["tokens"]
    assert report["dropped"] == []
    assert 0 < report["packing_fill"] <= 1
    assert "⟦It is 0." in llf("inspect", config).output


def test_inspect_dumps_and_is_strict(llf, config, tmp_path):
    rows = config.parent / "rows.json"
    rows.write_text(json.dumps([*json.loads(rows.read_text()), {"instruction": "What?", "output": ""}]))
    result = llf("inspect", config, "--json", "--dump", tmp_path / "dump.jsonl", "--strict")
    assert result.exit_code == 1
    lines = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(20))
    assert sum(len(line["input_ids"]) for line in lines) == json.loads(result.stdout)["tokens"]
    refused = llf("inspect", config, "--dump", tmp_path / "nowhere" / "dump.jsonl")
    assert refused.exit_code == 1
    assert "No such file" in str(refused.exception)
