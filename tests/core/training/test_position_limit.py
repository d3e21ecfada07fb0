"""Models with a table of positions: what is longer is told before the first step."""

import json

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from llf_core.runs import read_status

SAMPLED = {"stage": "grpo", "num_generations": 2, "per_device_train_batch_size": 4, "max_steps": 1} | {
    "reward_functions": "length", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
}  # fmt: skip


@pytest.fixture
def gpt2(tiny_tokenizer, tmp_path):
    sizes = {"n_positions": 48, "n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer), **sizes))
    model.save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer.save_pretrained(tmp_path / "gpt2")
    rows = [{"instruction": f"What is {i}?", "output": "It is " + "very " * 3 * i} for i in range(24)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return {"model_name_or_path": str(tmp_path / "gpt2"), "dataset": str(tmp_path / "rows.json"), "max_steps": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cutoff_len": 48}, ""),
        ({"cutoff_len": 49}, "has positions for 48 tokens, and the longest example has 49 tokens. Lower cutoff_len, "),
        ({"cutoff_len": 40, "finetuning_type": "prompt", "prompt_tokens": 8}, ""),
        (
            {"cutoff_len": 41, "finetuning_type": "prefix", "prefix_tokens": 8},
            "has positions for 48 tokens, of which those that finetuning_type prefix trains take 8, and the longest ",
        ),
        (SAMPLED | {"cutoff_len": 40, "max_completion_length": 4}, ""),
        (SAMPLED | {"cutoff_len": 40, "max_completion_length": 64}, "tokens and its completion at most 64. Lower "),
    ],
)
def test_what_is_longer_than_the_table_of_positions_is_told(trained, gpt2, changes, said):
    folder, code = trained(**gpt2 | changes)
    assert said in (read_status(folder).reason or "")
    assert code == (2 if said else 0)


@pytest.mark.parametrize(
    ("question", "said"),
    [("What is it?", ""), ("What " * 14, "the longest prompt has 39 tokens and its completion at most 12")],
)
def test_a_prompt_that_is_left_out_does_not_count(trained, gpt2, tmp_path, question, said):
    """A truncated prompt is not sampled from, so it needs no positions; a whole one does."""
    rows = [{"instruction": question, "output": "It"}] * 7 + [{"instruction": "What " * 60, "output": "It"}]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    changes = {"dataset": str(tmp_path / "long.json"), "cutoff_len": 40, "max_completion_length": 12}
    folder, code = trained(**gpt2 | SAMPLED | changes)
    assert said in (read_status(folder).reason or "")
    assert code == (2 if said else 0)


@pytest.mark.parametrize(("cutoff", "said"), [(48, ""), (70, "which KTO compares, has up to 70 tokens. Lower cutoff")])
def test_a_prompt_with_the_completion_of_another_example_counts(trained, gpt2, tmp_path, cutoff, said):
    rows = [
        {"instruction": "what " * (1 if i % 2 else 8), "output": "very " * (8 if i % 2 else 1), "kto_tag": i < 4}
        for i in range(8)
    ]
    (tmp_path / "judged.json").write_text(json.dumps(rows))
    judged = {"stage": "kto", "dataset": str(tmp_path / "judged.json"), "per_device_train_batch_size": 2}
    folder, code = trained(**gpt2 | judged | {"cutoff_len": cutoff})
    assert said in (read_status(folder).reason or "")
    assert code == (2 if said else 0)
