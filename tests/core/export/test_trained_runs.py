"""Exports of runs that a trainer made: with new tokens, and with a named template whose stop the base does not know."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.chat.target import TargetError
from llf_core.export import export
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]


@pytest.mark.usefixtures("warm_python")
def test_new_tokens_and_a_named_template_leave_with_the_model(trained, tmp_path):
    """The adapter has rows of tokens that its base lacks; the whole model has them in its embedding."""
    folder, code = trained(add_special_tokens="<fish>,<ship>", template="alpaca", learning_rate=0.05)
    assert code == 0
    done = {name: export(folder, name, folder=tmp_path / name) for name in ("adapter", "merged")}
    assert all(one.receipt.passed for one in done.values())
    assert done["merged"].receipt.source["run"] == folder.id
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids("<ship>") == len(tokenizer) - 1
    assert "### Instruction" in tokenizer.chat_template
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert json.loads((tmp_path / "merged" / "receipt.json").read_text())["source"]["step"] == 6


def test_a_run_without_a_result_and_a_reward_model_are_sentences(make_run, tmp_path):
    with pytest.raises(TargetError, match="has neither a result nor a checkpoint yet"):
        export(make_run(), folder=tmp_path / "out")
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"instruction": "a", "chosen": "b", "rejected": "c"}]))
    with pytest.raises(TargetError, match=r"Its result in .* is a classifier with one label, head included"):
        export(make_run(stage="rm", dataset=str(pairs)), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
