"""Runs that add tokens: their rows are trained on the fast path, resumed to the last bit, and evaluated."""

import json
import math

import pytest
import torch

from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.evaluation.run_losses import losses
from llf_core.runs import RunReader
from llf_core.runs.config_file import run_config
from llf_core.training.session import run_attempt
from tests.core.training.test_session import events, next_attempt, stop_at
from tests.core.training.test_session import losses as step_losses

TOKENS = {"add_special_tokens": "<fish>,<ship>", "learning_rate": 3e-3}


@pytest.fixture
def fish(tmp_path):
    """Records that have the new tokens in questions and answers."""
    path = tmp_path / "fish.json"
    rows = [{"instruction": f"Name <fish> {n}", "input": "", "output": f"It is <ship> {n}."} for n in range(24)]
    path.write_text(json.dumps(rows))
    return str(path)


def curve(folder):
    return RunReader(folder).metrics().values("loss").tolist()


@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_a_run_with_new_tokens_resumes_to_the_last_bit(trained, make_run, fish, monkeypatch, capfd, method):
    keys = {"dataset": fish, "max_steps": 6, "finetuning_type": method, **TOKENS}
    whole, code = trained(**keys)
    assert code == 0
    told = "".join(capfd.readouterr())
    assert "New tokens with trained embeddings: <fish> (352), <ship> (353). They begin by noise_init." in told
    assert "Fast path: the output head" not in told
    (event,) = events(whole, "tokens")
    assert (event["tokens"], event["ids"]) == (["<fish>", "<ship>"], [352, 353])
    folder = make_run(**keys)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 3)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    assert step_losses(folder) == step_losses(whole)


def test_the_fast_path_computes_the_same_losses(trained, fish):
    runs = [trained(dataset=fish, fast_path=fast, **TOKENS)[0] for fast in (True, False)]
    fast, plain = (curve(folder) for folder in runs)
    assert fast == pytest.approx(plain, rel=2e-3)
    assert fast[-1] < fast[0]
    rows = []
    for folder in runs:
        config = run_config(folder)
        for _, model, tokenizer in load_base_and_tuned(folder, config):
            ids = tokenizer("<fish> <ship>", return_tensors="pt", add_special_tokens=False).input_ids
            assert ids[0, [0, -1]].tolist() == [352, 353]
            with torch.no_grad():
                rows.append(model.get_input_embeddings()(ids[0, :1]).float().clone())
    base, tuned = rows[0], rows[1]
    assert torch.equal(base, rows[2])
    assert not torch.equal(base, tuned)
    assert torch.allclose(tuned, rows[3], atol=2e-2)


def test_a_preference_run_starts_at_its_reference(trained, tmp_path, capfd):
    """ln 2 (DPO, arXiv 2305.18290, equation 7, for equal models): the reference has the new rows too."""
    path = tmp_path / "pairs.json"
    rows = [
        {"instruction": f"Name <fish> {n}", "input": "", "chosen": f"<ship> {n}", "rejected": "<fish>" * (1 + n % 3)}
        for n in range(16)
    ]
    path.write_text(json.dumps(rows))
    keys = {"stage": "dpo", "dataset": str(path), "val_size": 4, **TOKENS}
    folder, code = trained(**keys)
    assert code == 0
    assert curve(folder)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert "Computed the reference log-probabilities" in capfd.readouterr().out
    found = losses(folder)
    assert found.base == pytest.approx(math.log(2), abs=1e-5)
    capfd.readouterr()
    # Other initial rows are another reference.
    other, _ = trained(init_special_tokens="mean_init", **keys)
    assert "Computed the reference log-probabilities" in capfd.readouterr().out
    assert curve(other)[0] == pytest.approx(math.log(2), abs=1e-5)
    # A continued adapter is its own reference, with the rows that it was saved with.
    further, code = trained(**keys | {"adapter_name_or_path": str(folder.output), "add_special_tokens": None})
    assert code == 0
    assert curve(further)[0] == pytest.approx(math.log(2), abs=1e-5)
