import pytest
import torch

from llf_core.models.generate import encode, end_tokens, generate

PROMPTS = ["one", "What is the capital of France? It is", "two three four five six", "the sea"]


@pytest.fixture
def pair(config, loaded):
    _, tokenizer, model = loaded(config(finetuning_type="full"))
    with torch.no_grad():  # answers of random weights are the last token again and again; these are not
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=_generator()))
    return model, tokenizer


def _generator():
    return torch.Generator().manual_seed(7)


def test_a_batch_answers_as_each_prompt_alone(pair):
    model, tokenizer = pair
    together = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=12)[0] for prompt in PROMPTS]
    assert together == alone == generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=3)
    assert len(set(together)) > 1


def test_greedy_is_the_likeliest_token_each_time(pair):
    model, tokenizer = pair
    ids = encode(tokenizer, ["the ship"])["input_ids"]
    start = ids.shape[1]
    for _ in range(6):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    expected = tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, ["the ship"], max_new_tokens=6) == [expected]


def test_sampling_is_repeatable_by_its_seed_and_leaves_torchs_generator(pair):
    model, tokenizer = pair
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    settings = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
    first = generate(model, tokenizer, ["one"], seed=1, **settings)
    assert torch.equal(torch.rand(1), expected)
    assert generate(model, tokenizer, ["one"], seed=1, **settings) == first
    assert any(generate(model, tokenizer, ["one"], seed=seed, **settings) != first for seed in range(2, 6))


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_left_as_it_was(pair, training):
    model, tokenizer = pair
    model.train(training)
    generate(model, tokenizer, ["one"], max_new_tokens=1)
    assert model.training is training


def test_padding_is_on_the_left_and_the_template_is_the_tokenizers(pair):
    tokenizer = pair[1]
    batch = encode(tokenizer, ["one", "one two three"], system="Be kind.")
    text = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(batch["input_ids"][0][batch["attention_mask"][0].bool()]) == text
    assert batch["attention_mask"][0, 0] == 0
    assert tokenizer.padding_side == "right"


def test_without_a_template_the_prompt_is_continued(pair):
    import copy

    tokenizer = pair[1]
    plain = copy.copy(tokenizer)
    plain.chat_template = None
    assert encode(plain, ["one two"])["input_ids"].tolist() == [plain("one two")["input_ids"]]


def test_an_answer_ends_at_any_of_the_ends(pair):
    model, tokenizer = pair
    model.generation_config.eos_token_id = [0, 7]
    assert end_tokens(model, tokenizer) == [0, tokenizer.eos_token_id, 7]
