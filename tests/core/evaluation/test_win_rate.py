"""Which answers a reward model prefers: counted by hand, and of real models."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llf_core.cli import app
from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.evaluation.win_rate import PairwiseComparison, win_rate, win_rate_in_child, win_rate_of
from llf_core.models.reward_model_files import load_reward_model
from tests.processes import running


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.fixture
def reward_model(trained, tmp_path):
    """A run that has learned to like one sort of answers."""
    path = tmp_path / "pairs.json"
    rows = [
        {"instruction": f"What is {i}?", "input": "", "chosen": f"It is number {i}.", "rejected": "No" + "!" * i}
        for i in range(12)
    ]
    path.write_text(json.dumps(rows))
    folder, code = trained(stage="rm", dataset=str(path), max_steps=10, learning_rate=3e-3)
    assert code == 0
    return folder


def test_wins_ties_and_losses_are_counted():
    scores = [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (-1.0, 0.5)]
    found = win_rate_of([PairwiseComparison("?", "a", "b", base, tuned) for base, tuned in scores])
    assert (found.wins, found.ties, found.losses, found.rate) == (2, 1, 1, 0.625)
    assert (found.base, found.tuned) == (0.5, 0.875)
    assert 0 < found.low < 0.625 < found.high < 1


def test_both_answer_what_was_held_out_and_the_reward_model_scores_them(trained, reward_model, settings):
    folder, _ = trained(max_steps=3, val_size=6, learning_rate=3e-3, default_system="You are a helpful assistant.")
    told = []
    found = win_rate(folder, reward_model.id, max_new_tokens=8, progress=lambda *said: told.append(said))
    questions = {row["instruction"] for row in json.loads(Path(settings["dataset"]).read_text())}
    assert len(found.contests) == 6
    assert len({one.prompt for one in found.contests} & questions) == 6
    assert told[-1] == ("Scoring responses", 12, 12)
    assert ("Answers of the result", 6, 6) in told

    scorer = load_reward_model(reward_model.id)
    from llf_core.config import RunConfig

    config = RunConfig.load(folder.config)
    for of, model, tokenizer in load_base_and_tuned(folder, config):
        for one in found.contests:
            talk = [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": one.prompt},
            ]
            ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            made = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
            assert tokenizer.decode(made, skip_special_tokens=True).strip() == getattr(one, of)
            (score,) = scorer.scores([[*talk, {"role": "assistant", "content": getattr(one, of)}]])
            assert score == pytest.approx(getattr(one, f"{of}_score"), abs=1e-5)


def test_prompts_in_a_child(trained, reward_model):
    folder, _ = trained(max_steps=1)
    told = []
    found = win_rate_in_child(
        folder.id,
        str(reward_model.output),
        ["What is 3 plus 4?", "--most=1"],
        max_new_tokens=4,
        progress=lambda *said: told.append(said),
    )
    assert [one.prompt for one in found.contests] == ["What is 3 plus 4?", "--most=1"]
    assert ("Answers of the base", 2, 2) in told


@pytest.mark.usefixtures("warm_python")
def test_a_terminal_shows_the_rate_and_its_band(trained, reward_model):
    folder, _ = trained(max_steps=1)
    asked = ["runs", "win-rate", folder.id, reward_model.id, "--prompt", "Hello", "--tokens", "2"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0
    assert "(95 % band " in shown.output
    assert sum(int(number) for number in re.findall(r"(\d+) (?:won|equal|lost)", shown.output)) == 1


@pytest.mark.usefixtures("warm_python")
def test_an_interrupt_ends_the_child(trained, reward_model):
    import psutil

    folder, _ = trained(max_steps=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        win_rate_in_child(folder.id, reward_model.id, ["x"], progress=interrupt)
    assert running(psutil.Process().children(), "llf_core.evaluation.win_rate") == []


def test_what_is_missing_is_said(trained, make_run, reward_model):
    with pytest.raises(FileNotFoundError, match="has no output yet"):
        win_rate(make_run(), reward_model.id)
    folder, _ = trained(max_steps=1)
    with pytest.raises(ValueError, match=r"has no validation data\. Pass prompts"):
        win_rate(folder, reward_model.id)
    with pytest.raises(ValueError, match="maximum number of examples is 0"):
        win_rate(folder, reward_model.id, most=0)
    with pytest.raises(ValueError, match="The list of prompts is empty"):
        win_rate(folder, reward_model.id, [])
    with pytest.raises(ValueError, match="No reward model at nowhere"):
        win_rate(folder, "nowhere", ["x"])
    with pytest.raises(ValueError, match="is not a reward model"):
        win_rate(folder, folder.id, ["x"], max_new_tokens=1)
    with pytest.raises(ValueError, match="trained a reward model, which does not generate text"):
        win_rate(reward_model, reward_model.id, ["x"])


def test_of_pairs_the_question_is_what_was_held_out(trained, reward_model):
    keys = yaml.safe_load(reward_model.config.read_text())
    folder, code = trained(stage="dpo", dataset=keys["dataset"], val_size=3, max_steps=1)
    assert code == 0
    found = win_rate(folder, reward_model.id, max_new_tokens=4, most=2)
    assert [one.prompt.startswith("What is ") for one in found.contests] == [True, True]
