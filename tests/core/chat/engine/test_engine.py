import copy
import random

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from llf_core.chat.request import ChatRequest, ChatSampling, Failed, Piece, ToolCallPiece
from llf_core.models.errors import ModelError
from tests.core.chat.engine.conftest import TARGETS, Talk, prompt_of, user
from tests.core.generation.small_models import CONFIGS, by_transformers, make
from tests.tiny import tiny_llama

WORDS = ["system", "user", "What", "is the capital", "of France", "sea", "light", "one two", "three", "é", "你好"]


def some_text(random_numbers, longest=60):
    return " ".join(random_numbers.choices(WORDS, k=random_numbers.randint(1, longest)))


@pytest.mark.parametrize("seed", range(6))
def test_replies_of_a_batch_that_others_join_and_leave_equal_those_alone(talk, expected, seed):
    numbers = random.Random(seed)
    adapters = [None, *TARGETS]
    requests = [
        user(some_text(numbers), max_tokens=numbers.randint(1, 30), adapter=numbers.choice(adapters))
        for _ in range(numbers.randint(2, 14))
    ]
    waiting = list(requests)
    cancelled = {}
    while waiting or talk.engine.step():
        while waiting and numbers.random() < 0.4:
            number = talk.submit(waiting.pop(0))
            if numbers.random() < 0.15:
                cancelled[number] = numbers.randint(0, 8)
        for number, events in cancelled.items():
            if len(talk.events[number]) > events:
                talk.engine.cancel(number)
    for number, request in enumerate(requests):
        if number in cancelled and talk.last(number).reason == "cancelled":
            assert expected(request).startswith(talk.text(number))
        else:
            assert talk.text(number) == expected(request)
            assert talk.last(number).completion_tokens == request.max_tokens
    talk.check_order()


def test_none_of_64_concurrent_replies_is_lost_or_mixed_up(talk, expected):
    numbers = random.Random(64)
    requests = [
        user(f"{at} " + some_text(numbers, 20), adapter=[None, *TARGETS][at % 4], max_tokens=8) for at in range(64)
    ]
    for request in requests:
        talk.submit(request)
    talk.finish()
    assert [talk.text(at) for at in range(64)] == [expected(request) for request in requests]
    talk.check_order()


def test_a_second_turn_reads_only_what_is_new(talk, expected, tokenizer):
    first = user("What is the capital of France?")
    number = talk.ask(first)
    assert talk.started(number).cached_tokens == 0
    said = [*first.messages, {"role": "assistant", "content": talk.text(number)}, {"role": "user", "content": "sea"}]
    second = ChatRequest(messages=tuple(said), max_tokens=16)
    number = talk.ask(second)
    assert talk.text(number) == expected(second)
    assert talk.started(number).cached_tokens >= len(prompt_of(first, tokenizer))
    assert talk.last(number).cached_tokens == talk.started(number).cached_tokens
    again = talk.ask(second)
    assert (talk.text(again), talk.started(again).cached_tokens) == (
        expected(second), len(prompt_of(second, tokenizer)) - 1
    )  # fmt: skip
    said[0] = {"role": "user", "content": "What is the light of the sea?"}
    edited = ChatRequest(messages=tuple(said), max_tokens=16)
    number = talk.ask(edited)
    assert talk.text(number) == expected(edited)
    common = prompt_of(user("What is the "), tokenizer)
    assert 0 < talk.started(number).cached_tokens <= len(common)
    # Another adapter computes other keys and values.
    other = ChatRequest(messages=second.messages, max_tokens=16, adapter="one")
    number = talk.ask(other)
    assert (talk.text(number), talk.started(number).cached_tokens) == (expected(other), 0)


def test_prefixes_stay_within_their_bytes(plain_model, tokenizer, expected):
    talk = Talk(copy.deepcopy(plain_model), tokenizer, prefix_cache_bytes=60_000)
    for at in range(6):
        request = user(f"{at} the sea, the ship, the light", max_tokens=8)
        assert talk.text(talk.ask(request)) == expected(request)
        assert 0 < talk.engine._prefixes.nbytes <= 60_000
    off = Talk(copy.deepcopy(plain_model), tokenizer, prefix_cache_bytes=0)
    off.ask(user("the sea"))
    assert off.started(off.ask(user("the sea"))).cached_tokens == 0


def test_cancel_ends_a_reply_at_the_next_token_wherever_it_is(talk, expected):
    request = user("one two three", max_tokens=40)
    running, waiting = talk.submit(request), talk.submit(request)
    while len(talk.events[running]) < 4:
        talk.engine.step()
    talk.engine.cancel(running)
    before = len(talk.events[running])
    talk.engine.step()
    assert talk.last(running).reason == "cancelled"
    assert len(talk.events[running]) <= before + 2  # what was held back, and the end
    assert expected(request).startswith(talk.text(running))
    talk.engine.cancel(waiting)
    talk.engine.cancel(12345)
    talk.finish()
    assert talk.last(waiting).reason == "cancelled"
    again = talk.ask(request)
    assert talk.text(again) == expected(request)
    assert talk.started(again).cached_tokens == talk.started(again).prompt_tokens - 1


def test_a_long_prompt_is_read_in_pieces_between_which_replies_go_on(talk, expected):
    request = user("one two", max_tokens=30, logprobs=True)  # an event for each token
    running = talk.submit(request)
    talk.engine.step()
    long = user("0" * 400, max_tokens=2)
    number = talk.submit(long)
    seen = 0
    while talk.text(number) == "":
        assert not any(isinstance(one, Failed) for one in talk.events[number])
        pieces = len(talk.events[running])
        talk.engine.step()
        seen += len(talk.events[running]) > pieces
    assert seen >= 3
    talk.finish()
    assert (talk.text(running), talk.text(number)) == (expected(request), expected(long))


def test_a_prompt_longer_than_the_context_and_a_reply_that_fills_it(talk, tokenizer):
    number = talk.ask(user("0" * 600))
    failed = talk.last(number)
    assert (failed.kind, len(talk.events[number])) == ("too_long", 1)
    assert "the model reads 512" in failed.message
    request = user("0" * 450, max_tokens=None)
    number = talk.ask(request)
    length = len(prompt_of(request, tokenizer))
    assert talk.last(number).reason == "length"
    assert length + talk.last(number).completion_tokens == 512


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (user("x", adapter="four"), "model_gone", "no adapter four"),
        (user("x", sampling=ChatSampling(logit_bias={9999: 1.0})), "invalid", "token id 9999"),
        (ChatRequest(messages=({"content": "x"},)), "invalid", "Message 1 has no role"),
        (user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]), "invalid", "text only"),
        (user([{"type": "sound"}]), "invalid", "type sound"),
        (user("x", continue_last=True), "invalid", "of the role user"),
        (user("x", json_schema={"type": "nonsense"}), "invalid", "json_schema"),
    ],
)
def test_an_invalid_request_is_a_sentence(talk, request_, kind, said):
    failed = talk.last(talk.ask(request_))
    assert failed.kind == kind
    assert said in failed.message


def test_end_tokens_and_stop_strings_end_a_reply(plain_model, tokenizer, expected):
    whole = user("the ship", max_tokens=30)
    text = expected(whole)
    talk = Talk(copy.deepcopy(plain_model), tokenizer)
    stop = text[len(text) // 2 :][:3]
    number = talk.ask(user("the ship", max_tokens=30, stop=(stop,)))
    assert talk.text(number) == text[: text.index(stop)]
    assert talk.last(number).reason == "stop"
    assert all(stop not in one.text for one in talk.events[number] if isinstance(one, Piece))
    ids = [one.id for one in talk.tokens(talk.ask(user("the ship", max_tokens=30, logprobs=True)))]
    talk.engine._ends = [ids[5]]
    number = talk.ask(whole)
    assert talk.last(number).reason == "stop"
    assert talk.text(number) == tokenizer.decode(ids[: ids.index(ids[5])])


def test_a_seed_gives_the_same_reply_whatever_else_runs(talk):
    def drawn(seed, text="the light"):
        return user(text, sampling=ChatSampling(temperature=1.2, top_p=0.95, top_k=200, min_p=0.001, seed=seed))

    alone = talk.text(talk.ask(drawn(3)))
    beside = [
        talk.submit(one) for one in (drawn(4), user("sea"), drawn(3), drawn(5, "one two three four"), drawn(None))
    ]
    talk.finish()
    assert talk.text(beside[2]) == alone
    assert talk.text(beside[0]) != alone


def test_logprobs_are_those_of_a_plain_forward(talk, plain_model, tokenizer):
    request = user("two three", logprobs=True, top_logprobs=4, sampling=ChatSampling(temperature=0.7, seed=1))
    number = talk.ask(request)
    tokens = talk.tokens(number)
    assert len(tokens) == talk.last(number).completion_tokens == 16
    ids = prompt_of(request, tokenizer)
    with torch.no_grad():
        logits = plain_model(torch.tensor([ids + [one.id for one in tokens]])).logits[0].log_softmax(-1)
    for at, one in enumerate(tokens):
        row = logits[len(ids) - 1 + at]
        assert one.logprob == pytest.approx(float(row[one.id]), abs=1e-3)
        best = row.topk(4)
        assert [other.id for other in one.top] == best.indices.tolist()
        assert [other.logprob for other in one.top] == pytest.approx(best.values.tolist(), abs=1e-3)
        assert one.text == tokenizer.decode([one.id])


def test_a_reply_follows_a_json_schema(talk):
    import json

    schema = {
        "type": "object",
        "properties": {"sea": {"type": "boolean"}, "ship": {"enum": ["a", "b"]}},
        "required": ["sea", "ship"],
        "additionalProperties": False,
    }
    beside = user("one", max_tokens=30)
    number, other = talk.submit(user("the sea", json_schema=schema, max_tokens=60)), talk.submit(beside)
    talk.finish()
    found = json.loads(talk.text(number))
    assert set(found) == {"sea", "ship"}
    assert found["ship"] in {"a", "b"}
    assert talk.last(number).reason == "stop"
    assert talk.last(other).reason == "length"


def test_the_rest_of_a_message_is_continued(talk, expected, tokenizer):
    begun = ({"role": "user", "content": "one"}, {"role": "assistant", "content": "the sea"})
    number = talk.ask(ChatRequest(messages=begun, continue_last=True, max_tokens=10))
    text = tokenizer.apply_chat_template(list(begun), continue_final_message=True, tokenize=False)
    assert talk.text(number) == expected(ChatRequest(prompt=text, max_tokens=10))


def test_a_lone_surrogate_is_read_as_a_replacement_character(talk):
    replies = [talk.text(talk.ask(user(f"one{sign}", max_tokens=4))) for sign in ("\ud800", "\ufffd")]
    assert replies[0] == replies[1] != ""
    assert talk.text(talk.ask(ChatRequest(prompt="\udcff", max_tokens=2)))


def test_an_error_of_one_reply_leaves_the_others(talk, expected, monkeypatch):
    request = user("the sea", max_tokens=12)
    good = talk.submit(request)

    def gone(event):
        if isinstance(event, Piece):
            raise OSError("pipe closed")

    talk.engine.submit(77, request, gone)
    nan = talk.submit(user("one two", max_tokens=12, sampling=ChatSampling(logit_bias={5: float("nan")})))
    for _ in range(3):
        talk.engine.step()
    talk.finish()
    assert talk.text(good) == expected(request)
    assert talk.last(nan).kind == "engine"
    assert "NaN" in talk.last(nan).message
    # Out of memory in the middle of a step: the newest reply ends, the others go on as if nothing had been.
    numbers = [talk.submit(request), talk.submit(user("two", max_tokens=12))]
    while len(talk.events[numbers[1]]) < 3:
        talk.engine.step()
    layer = talk.engine._batches[None].cache.layers[1]
    update, left = type(layer).update, [2]

    def fails(self, *given):
        if self is layer and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("no memory")
        return update(self, *given)

    monkeypatch.setattr(type(layer), "update", fails)
    talk.finish()
    assert talk.text(numbers[0]) == expected(request)
    assert talk.last(numbers[1]).kind == "out_of_memory"
    # Out of memory when a reply joins the others: they go on, and so does what comes later.
    number, other = talk.submit(request), talk.submit(user("two", max_tokens=12))
    while len(talk.events[other]) < 3:
        talk.engine.step()
    put, left = type(layer).put, [1]

    def no_room(self, *given):
        if self is layer and left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("no memory")
        return put(self, *given)

    monkeypatch.setattr(type(layer), "put", no_room)
    late = talk.submit(user("two " * 20, max_tokens=12))  # longer than the others
    talk.finish()
    assert talk.last(late).kind == "out_of_memory"
    assert talk.text(number) == talk.text(talk.ask(request)) == expected(request)
    assert talk.text(other) == expected(user("two", max_tokens=12))
    # A reply whose keys and values never fit.
    monkeypatch.setattr("llf_core.chat.engine.engine.free_memory", lambda _: 10)
    number = talk.ask(user("three"))
    assert talk.last(number).kind == "out_of_memory"


def test_adapters_are_loaded_and_unloaded_while_others_run(plain_model, tokenizer, adapter_folders, expected, tmp_path):
    talk = Talk(copy.deepcopy(plain_model), tokenizer)
    engine = talk.engine
    base = {name: weight.data_ptr() for name, weight in engine._model.named_parameters()}
    request = user("the capital", max_tokens=20)
    running = talk.submit(request)
    talk.engine.step()
    for name, folder in adapter_folders.items():
        engine.load_adapter(name, folder)
        engine.step()
    with pytest.raises(ModelError, match="adapter_config"):
        engine.load_adapter("none", tmp_path)
    gone, kept = talk.submit(user("sea", adapter="one")), talk.submit(user("sea", adapter="two"))
    for _ in range(4):
        engine.step()
    engine.unload_adapter("one")
    talk.finish()
    assert talk.last(gone) == Failed(
        "model_gone", "The adapter one was unloaded.", "Load it again, or choose another one."
    )
    assert talk.text(running) == expected(request)
    assert talk.text(kept) == expected(user("sea", adapter="two"))
    assert talk.last(talk.ask(user("sea", adapter="one"))).kind == "model_gone"
    engine.load_adapter("one", adapter_folders["one"])
    assert talk.text(talk.ask(user("sea", adapter="one"))) == expected(user("sea", adapter="one"))
    # One set of weights: the base's own, at the place where they were.
    with engine._adapters.active(None) as model:
        assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == base
        assert not hasattr(model, "peft_config")


def test_an_adapter_takes_the_16_bits_of_its_base_and_replies_as_peft_does(plain_model, tokenizer, adapter_folders):
    base = copy.deepcopy(plain_model).bfloat16()
    wrapped = PeftModel.from_pretrained(copy.deepcopy(base), adapter_folders["two"], autocast_adapter_dtype=False)
    wrapped = wrapped.bfloat16().eval()
    talk = Talk(base, tokenizer)
    talk.engine.load_adapter("two", adapter_folders["two"])
    with talk.engine._adapters.active("two") as model, torch.no_grad():
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        ids = torch.arange(3, 30)[None]
        found, expected = model(ids).logits.float(), wrapped(ids).logits.float()
        with wrapped.disable_adapter():
            plain = wrapped(ids).logits.float()
    rounding, change = (found - expected).abs().mean(), (plain - expected).abs().mean()
    assert rounding < 0.03 * change


def test_in_bfloat16_a_reply_depends_neither_on_what_is_kept_nor_on_what_runs_beside(tokenizer, tmp_path):
    model = tiny_llama(tokenizer).bfloat16()
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    wrapped.save_pretrained(tmp_path)
    talk = Talk(model, tokenizer)
    talk.engine.load_adapter("two", tmp_path)
    numbers = random.Random(3)
    beginning = " ".join(numbers.choices(WORDS, k=60))  # longer than a chunk of a prompt
    drawn = ChatSampling(temperature=1.0, seed=5)
    requests = [
        user(
            beginning * (at % 3 == 0) + some_text(numbers, 20),
            adapter=[None, "two"][at % 2],
            sampling=drawn if at % 4 == 0 else ChatSampling(),
            max_tokens=12,
            logprobs=True,
        )
        for at in range(24)
    ]

    def tokens(number):
        return [(one.id, one.logprob) for one in talk.tokens(number)]

    alone = []
    for request in requests:
        talk.engine.forget_prefixes()
        alone.append(tokens(talk.ask(request)))
    kept = [talk.ask(request) for request in requests]
    assert sum(talk.started(number).cached_tokens > 0 for number in kept) > 2
    assert [tokens(number) for number in kept] == alone
    together = [talk.submit(request) for request in requests]
    talk.finish()
    assert [tokens(number) for number in together] == alone
    assert [one.plain for one in talk.engine._forwards.values()] == [None, None]


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "gpt_neox", "qwen3", "mixtral"])
def test_other_architectures_reply_in_batches_and_from_prefixes(tokenizer, kind):
    model = make(kind, CONFIGS[kind], len(tokenizer))
    talk = Talk(copy.deepcopy(model), tokenizer)
    assert talk.engine.facts()["plain"] is None
    requests = [user(text, max_tokens=10 + 3 * at) for at, text in enumerate(["the sea", "one two three four", "x"])]
    numbers = []
    for request in (*requests, *requests):
        numbers.append(talk.submit(request))
        talk.engine.step()
    talk.finish()
    for number, request in zip(numbers, (*requests, *requests), strict=True):
        ids = by_transformers(model, prompt_of(request, tokenizer), request.max_tokens)
        assert talk.text(number) == tokenizer.decode(ids, skip_special_tokens=True)
    assert talk.started(numbers[-1]).cached_tokens == talk.started(numbers[-1]).prompt_tokens - 1


def test_thoughts_and_tool_calls_are_told_from_the_text(tokenizer):
    from llf_core.chat.engine.reply import Reply, TokenChooser, reply_parser

    class Template:
        """The tokenizer with a template that names Hermes' marks of calls."""

        chat_template = "{{ tools }}<tool_call></tool_call>"

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    tools = ({"type": "function", "function": {"name": "sea", "parameters": {"properties": {}}}},)
    request = user("x", tools=tools, logprobs=True)
    written = '<think>one</think>two<tool_call>{"name": "sea", "arguments": {"a": 1}}</tool_call><|im_end|>'
    ids = tokenizer(written)["input_ids"]
    events = []
    reply = Reply(
        1, request, events.append, [1], 200, [tokenizer.eos_token_id], tokenizer, reply_parser(request, Template(), "")
    )
    reply.chooser = TokenChooser(request.sampling, 1.0, [1], torch.device("cpu"))
    for token in ids:
        reply.put(token, torch.zeros(len(tokenizer)))
    said = {
        kind: "".join(one.text for one in events if isinstance(one, Piece) and one.kind == kind)
        for kind in ("reasoning", "content")
    }
    assert said == {"reasoning": "one", "content": "two"}
    calls = [one for one in events if isinstance(one, ToolCallPiece)]
    assert (calls[0].name, "".join(one.arguments for one in calls)) == ("sea", '{"a": 1}')
    assert events[-1].reason == "tool_calls"
    tokens = [token.id for one in events if isinstance(one, Piece) for token in one.tokens]
    assert tokens == ids[:-1]  # each token once, also where its text is none


def test_penalties_are_those_of_the_formula():
    from llf_core.chat.engine.reply import TokenChooser

    def chooser(penalty=1.0, **settings):
        made = TokenChooser(ChatSampling(**settings), penalty, [0], torch.device("cpu"))
        for token in (1, 1, 2):
            made.accept(token)
        return made

    logits = torch.tensor([3.0, 4.0, 2.9, 2.8, -1.0])
    assert chooser().choose(logits) == 1
    found = chooser(presence_penalty=0.5, frequency_penalty=0.3)._penalized(logits)
    assert found.tolist() == pytest.approx([3.0, 4.0 - 0.5 - 2 * 0.3, 2.9 - 0.5 - 0.3, 2.8, -1.0])
    found = chooser(2.0, logit_bias={4: 5.0})._penalized(logits)
    assert found.tolist() == pytest.approx([1.5, 2.0, 1.45, 2.8, 4.0])
    assert logits.tolist() == pytest.approx([3.0, 4.0, 2.9, 2.8, -1.0])  # the batch's own logits stay


def test_a_temperature_that_float32_does_not_have_draws_the_likeliest_token():
    from llf_core.chat.engine.reply import TokenChooser

    chooser = TokenChooser(ChatSampling(temperature=1e-60), 1.0, [], torch.device("cpu"))
    assert chooser.choose(torch.tensor([1.0, 3.0, 2.0])) == 1


def test_samples_come_from_the_distribution_of_transformers():
    from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper
    from transformers import TopPLogitsWarper as TopP

    from llf_core.chat.engine.reply import TokenChooser

    logits = torch.randn(3000, generator=torch.Generator().manual_seed(0)) * 3
    for settings in (
        {"top_p": 0.8}, {"top_p": 0.999}, {"top_k": 50, "top_p": 0.7}, {"min_p": 0.05}, {"top_k": 7}, {"top_p": 1e-9}
    ):  # fmt: skip
        sampling = ChatSampling(temperature=0.8, seed=0, **settings)
        chooser = TokenChooser(sampling, 1.0, [], torch.device("cpu"))
        found, ids = chooser._candidates((logits - logits.max()) / 0.8)
        warpers = LogitsProcessorList([TemperatureLogitsWarper(0.8)])
        warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
        warpers += [TopP(sampling.top_p)] * (sampling.top_p < 1) + [MinPLogitsWarper(0.05)] * bool(sampling.min_p)
        expected = warpers(None, logits[None]).softmax(-1)[0]
        whole = torch.zeros(3000)
        whole[ids] = found / found.sum()
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-3)
