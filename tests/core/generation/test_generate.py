import copy

import pytest
import torch

from llf_core.generation.generate import add_end_tokens, continuations, encode, end_tokens, generate
from llf_core.generation.sampling import Sampling

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


def test_no_prompts_have_no_answers_and_an_empty_one_is_refused(pair):
    model, tokenizer = pair
    assert generate(model, tokenizer, []) == []
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"Prompt 2 has no tokens\. Expected a text that is not empty"):
        generate(model, tokenizer, ["one", ""])


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


def test_what_is_drawn_for_a_prompt_depends_on_its_number_and_the_seed_alone(pair):
    model, tokenizer = pair
    settings = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
    together = generate(model, tokenizer, PROMPTS, seed=4, **settings)
    assert generate(model, tokenizer, PROMPTS, seed=4, batch_size=1, **settings) == together
    alone = [generate(model, tokenizer, [prompt], seed=4 + at, **settings)[0] for at, prompt in enumerate(PROMPTS)]
    assert alone == together


@pytest.mark.parametrize("supported", [True, False])
def test_parameters_may_be_integers(pair, supported, monkeypatch):
    if not supported:
        monkeypatch.setattr("llf_core.generation.batches.unsupported", lambda _: "Not here.")
    model, tokenizer = pair
    settings = {"do_sample": True, "seed": 4, "max_new_tokens": 6}
    made = generate(model, tokenizer, PROMPTS, temperature=2, repetition_penalty=2, top_p=1, **settings)
    assert made == generate(model, tokenizer, PROMPTS, temperature=2.0, repetition_penalty=2.0, **settings)


def test_texts_come_piece_by_piece_and_end_at_a_stop(pair):
    model, tokenizer = pair
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=24)
    pieces = [""] * len(PROMPTS)

    def take(number, text):
        pieces[number] += text

    assert generate(model, tokenizer, PROMPTS, max_new_tokens=24, on_text=take) == whole
    assert [piece.strip() for piece in pieces] == whole
    stop = whole[1][4:6]
    expected = [text.split(stop)[0].strip() for text in whole]
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=24, stop=[stop]) == expected != whole


@pytest.mark.parametrize("configured", [{}, {"no_repeat_ngram_size": 9}])
def test_all_ends_when_cancelled(pair, configured):
    model, tokenizer = pair
    model.generation_config.update(**configured)  # the second is left to transformers
    seen = []
    generate(
        model,
        tokenizer,
        PROMPTS,
        max_new_tokens=200,
        batch_size=1,
        on_text=lambda *piece: seen.append(piece),
        cancelled=lambda: len(seen) >= 3,
    )
    assert len(seen) == 3 or len(seen) == 4
    assert len({number for number, _ in seen}) == 1


def test_transformers_own_loop_gives_the_same_where_ours_is_not_used(pair):
    model, tokenizer = pair
    settings = {"max_new_tokens": 12, "repetition_penalty": 1.3}
    drawn = settings | {"do_sample": True, "top_k": 20, "top_p": 0.9, "seed": 2}
    ours = [generate(model, tokenizer, PROMPTS[:1], **one) for one in (settings, drawn)]
    model.generation_config.no_repeat_ngram_size = 99  # longer than the answer: changes nothing
    assert [generate(model, tokenizer, PROMPTS[:1], **one) for one in (settings, drawn)] == ours


def test_the_models_own_repetition_penalty_is_used_unless_another_is_asked_for(pair):
    model, tokenizer = pair
    asked = generate(model, tokenizer, PROMPTS, max_new_tokens=16, repetition_penalty=1.9)
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=16)
    model.generation_config.repetition_penalty = 1.9
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=16) == asked != plain
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=16, repetition_penalty=1.0) == plain


def test_answers_end_at_further_tokens_beside_the_configured_ones(pair):
    model, tokenizer = pair
    model = copy.deepcopy(model)
    model.generation_config.eos_token_id = None
    add_end_tokens(model, [7])
    assert model.generation_config.eos_token_id == 7
    add_end_tokens(model, [5, 7])
    assert model.generation_config.eos_token_id == [5, 7]
    add_end_tokens(model, [])
    assert end_tokens(model, tokenizer) == sorted({5, 7, tokenizer.eos_token_id})


def test_continuations_are_the_ids_of_the_answers_with_their_end(pair):
    model, tokenizer = pair
    batch = encode(tokenizer, PROMPTS)
    prompts = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    settings = {"sampling": Sampling(do_sample=True, temperature=1.5, seed=4), "max_new_tokens": 12, "batch_size": 3}
    ids = continuations(model, tokenizer, prompts, **settings)
    texts = [tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
    assert texts == generate(model, tokenizer, PROMPTS, do_sample=True, temperature=1.5, seed=4, max_new_tokens=12)
    model.generation_config.eos_token_id = [*end_tokens(model, tokenizer), ids[0][3]]  # of a token that was drawn
    told: list[tuple[int, int]] = []
    ended = continuations(model, tokenizer, prompts, on_token=lambda *now: told.append(now), **settings)
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert (len(done), done[-1]) == (sum(map(len, ended)), len(prompts))
    assert sorted(length for _, length in told) == sorted(n + 1 for one in ended for n in range(len(one)))
    assert ended[0] == ids[0][: ids[0].index(ids[0][3]) + 1]
    for limits in ([0, 9, 9, 9], [9]):
        with pytest.raises(ValueError, match="Expected 4 integers of at least 1"):
            continuations(model, tokenizer, prompts, **{**settings, "max_new_tokens": limits})
