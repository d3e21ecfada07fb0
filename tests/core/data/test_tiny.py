"""The tiny model that other tests stand on."""

from transformers import AutoModelForCausalLM, AutoTokenizer


def test_the_tiny_model_loads_as_any_model_does(tiny_model_dir, tiny_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Größe\n 名 ?"}], tokenize=False)
    assert tokenizer.decode(tokenizer(text).input_ids) == text == "<|im_start|>user\nGröße\n 名 ?<|im_end|>\n"
    assert model.config.num_hidden_layers == 2
    assert model.config.vocab_size == len(tokenizer) == len(tiny_tokenizer)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id == 0
