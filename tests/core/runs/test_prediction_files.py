"""What a folder of predictions says for a view: only finished ones, and nothing of damaged files."""

import json

import pytest

from llf_core.runs.folder import FinishedPredictions, finished_predictions


@pytest.fixture
def write(tmp_path):
    def write(state=None, values=None, result="{}\n"):
        for name, content in (("generated_predictions.json", state), ("predict_results.json", values)):
            if content is not None:
                (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        if result is not None:
            (tmp_path / "generated_predictions.jsonl").write_text(result)
        return finished_predictions(tmp_path)

    return write


def test_there_are_none(tmp_path):
    assert finished_predictions(tmp_path / "missing") is None
    assert finished_predictions(tmp_path) is None


@pytest.mark.parametrize(
    ("values", "predicted"),
    [
        ({"predict_samples": 5, "predict_bleu": 1.5}, 5),
        ({"predict_samples": 8}, None),
        ({"predict_samples": "5"}, None),
        ("{torn", None),
        (None, None),
    ],
)
def test_finished_ones_are_counted(write, values, predicted):
    assert write({"settings": {}, "total": 7, "finished": True}, values) == FinishedPredictions(7, predicted)


@pytest.mark.parametrize(
    ("state", "result"),
    [
        ({"total": 7, "finished": False}, "{}\n"),
        ({"total": 7, "finished": True}, None),
        ({"total": -1, "finished": True}, "{}\n"),
        ({"finished": True}, "{}\n"),
        ("{torn", "{}\n"),
        ([7], "{}\n"),
    ],
)
def test_unfinished_and_damaged_ones_are_not_shown(write, state, result):
    assert write(state, {"predict_samples": 5}, result) is None
