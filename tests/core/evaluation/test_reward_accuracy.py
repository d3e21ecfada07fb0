"""How a reward model ranks pairs: counted by hand, and of a real one."""

import json
import re

import pytest
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.evaluation.reward_accuracy import accuracy_of, reward_accuracy
from llf_core.runs import RunReader


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.fixture
def rows():
    return [
        {"instruction": f"What is {i}?", "input": "", "chosen": f"It is {i}.", "rejected": "No" + "!" * i}
        for i in range(12)
    ]


def test_equal_rewards_are_no_right_order():
    found = accuracy_of([1.0, 0.0, 2.0, -1.0], [0.0, 0.0, 3.0, -2.0], {})
    assert (found.accuracy, found.pairs, found.margin) == (0.5, 4, 0.25)
    assert 0 < found.low < 0.5 < found.high < 1


@pytest.mark.usefixtures("warm_python")
def test_it_is_what_the_run_itself_measured(trained, rows, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    folder, code = trained(stage="rm", dataset=str(path), eval_dataset=str(path), max_steps=2, learning_rate=1e-3)
    assert code == 0
    logged = RunReader(folder).metrics()
    told = []
    found = reward_accuracy(folder.id, str(path), progress=lambda *said: told.append(said))
    assert told[-1] == ("Scoring responses", 24, 24)
    assert found.pairs == 12
    assert found.accuracy == pytest.approx(logged.last("eval_rewards/accuracies"))
    assert found.margin == pytest.approx(logged.last("eval_rewards/margins"), abs=1e-5)

    rows[2]["rejected"] = rows[2]["chosen"]
    rows[3]["chosen"] = ""
    path.write_text(json.dumps(rows))
    shown = CliRunner().invoke(app, ["reward-accuracy", folder.id, str(path), "--most", "4"])
    assert re.search(r"^\d+\.\d % of 4 pairs \(95 % band \d+\.\d % to \d+\.\d %\), mean margin", shown.output)
    assert "1 left out: the chosen and the rejected response are identical" in shown.output
    assert "1 left out: a response is empty" in shown.output


def test_pairs_are_read_as_the_run_has_read_them(trained, rows, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([*rows, rows[0] | {"chosen": "It is. " * 40}]))
    read = {"default_system": "Be as brief as you can, and polite.", "cutoff_len": 48, "enable_thinking": False}
    more = {"dataset": str(path), "eval_dataset": str(path), "max_steps": 2, "learning_rate": 1e-2}
    folder, code = trained(stage="rm", **read, **more)
    assert code == 0
    logged = RunReader(folder).metrics()
    for name in (folder.id, str(folder.output)):
        found = reward_accuracy(name, str(path))
        assert (found.pairs, found.dropped) == (13, {})
        assert found.accuracy == pytest.approx(logged.last("eval_rewards/accuracies"))
        assert found.margin == pytest.approx(logged.last("eval_rewards/margins"), abs=1e-5)


def test_what_is_missing_is_said(trained, rows, tmp_path, data_file):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([rows[0] | {"rejected": rows[0]["chosen"]}]))
    with pytest.raises(ValueError, match="maximum number of pairs is 0"):
        reward_accuracy("nowhere", str(path), most=0)
    with pytest.raises(ValueError, match=r"No pair of .* can be used: 1 since the chosen and the rejected response"):
        reward_accuracy("nowhere", str(path))
    with pytest.raises(ValueError, match="contains conversations with responses"):
        reward_accuracy("nowhere", str(data_file))
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="No reward model at nowhere"):
        reward_accuracy("nowhere", str(path))


def test_text_that_no_tokenizer_can_encode_is_left_out(rows, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([rows[0] | {key: "\ud83d"} for key in ("instruction", "chosen", "rejected")]))
    with pytest.raises(ValueError, match=r"No pair of .* can be used: 3 since its text is not valid Unicode"):
        reward_accuracy("nowhere", str(path))
