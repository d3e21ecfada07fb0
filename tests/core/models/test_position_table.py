"""The number of tokens that fit into a table of positions is the longest input that the model itself computes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from llf_core.generation.text_stream import context_length
from llf_core.models.architecture import first_position, position_limit
from tests.tiny import tiny_llama

SMALL = {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
BERT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "is_decoder": True}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
TABLES = {
    "roberta": BERT | {"max_position_embeddings": 20},
    "xlm-roberta": BERT | {"max_position_embeddings": 20},
    "camembert": BERT | {"max_position_embeddings": 20},
    "data2vec-text": BERT | {"max_position_embeddings": 20},
    "bert": BERT | {"max_position_embeddings": 20},
    "opt": {"max_position_embeddings": 20, "hidden_size": 8, "ffn_dim": 8, "word_embed_proj_dim": 8}
    | {"num_hidden_layers": 1, "num_attention_heads": 2},
    "codegen": GPT | {"n_positions": 20, "rotary_dim": 4, "n_ctx": 20},
    "openai-gpt": GPT | {"n_positions": 20},
    "ctrl": GPT | {"n_positions": 20, "dff": 8},
}


@pytest.mark.parametrize("kind", TABLES)
def test_one_token_more_than_the_limit_cannot_be_computed(kind):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | TABLES[kind])).eval()
    limit = position_limit(model)
    assert limit == context_length(model)
    assert limit == 20 - first_position(model)
    model(torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, limit + 1), 5))


def test_computed_positions_have_no_limit(tiny_tokenizer):
    model = tiny_llama(tiny_tokenizer)
    assert position_limit(model) is None
    assert first_position(model) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": ["wpe"]},
        {"target_modules": ["c_attn"], "modules_to_save": ["wpe"]},
    ],
)
def test_a_table_that_is_trained_by_an_adapter_is_as_long(options):
    model = GPT2LMHeadModel(GPT2Config(**SMALL, **GPT, n_positions=20))
    assert position_limit(get_peft_model(model, LoraConfig(**options, fan_in_fan_out=True))) == 20


@pytest.mark.parametrize("options", [{"target_modules": ["position_embeddings"]}, {"modules_to_save": ["embeddings"]}])
def test_padding_rows_count_behind_an_adapter(options):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("roberta", **SMALL | TABLES["roberta"]))
    adapted = get_peft_model(model, LoraConfig(**{"target_modules": ["query"]} | options))
    assert position_limit(adapted) == 18
    assert context_length(adapted) == 18
