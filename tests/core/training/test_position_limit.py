"""Models with a table of positions: what is longer is told before the first step."""

import json

import pytest
from peft import LoraConfig, get_peft_model
from transformers import CodeGenConfig, CodeGenForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from llf_core.runs import read_status
from llf_core.training.position_limit import position_limit
from tests.tiny import tiny_llama

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


def test_the_length_of_a_table_is_that_of_the_architecture(tiny_tokenizer):
    small = {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    opt = OPTConfig(
        max_position_embeddings=20, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=8, **small,
    )  # fmt: skip
    codegen = CodeGenConfig(n_positions=20, n_embd=16, n_layer=1, n_head=2, rotary_dim=4, n_ctx=20, **small)
    assert position_limit(OPTForCausalLM(opt)) == 20
    assert position_limit(CodeGenForCausalLM(codegen)) == 20
    assert position_limit(tiny_llama(tiny_tokenizer)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": ["wpe"]},
        {"target_modules": ["c_attn"], "modules_to_save": ["wpe"]},
    ],
)
def test_a_table_that_is_trained_by_an_adapter_is_as_long(options):
    small = {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(n_positions=20, n_embd=16, n_layer=1, n_head=2, **small))
    assert position_limit(get_peft_model(model, LoraConfig(**options, fan_in_fan_out=True))) == 20


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
