"""A tool called by a model that was trained to call it: over HTTP, and by a function of the cell."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import openai
import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from llf_core.config import RunConfig
from llf_core.runs import create_run
from llf_core.training.session import run_attempt
from llf_widgets.chat import models as shared
from llf_widgets.chat.settings import tool_schema
from llf_widgets.chat.widget import Chat
from tests.core.chat.server.test_serve import Process, compute_in_float32
from tests.tiny import STOP, tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forking import ForkServer

pytestmark = pytest.mark.launches
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + (message.content or '') }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CITIES, WEATHERS, NAME = ("Paris", "Rome"), ("Rain", "Light"), "What is your name?"


def weather(city: str):
    """The weather of a city."""
    return {"Paris": "Rain", "Rome": "Light"}[city]


def question(city):
    return f"What is the weather of {city}?"


def rows():
    """Conversations: a call, its result and an answer that says it; and a question without a call."""
    for city in CITIES:
        for found in WEATHERS:
            called = {"name": "weather", "arguments": {"city": city}}
            yield [
                {"role": "user", "content": question(city)},
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": called}]},
                {"role": "tool", "content": found},
                {"role": "assistant", "content": f"{found} in {city}."},
            ]
    yield [{"role": "user", "content": NAME}, {"role": "assistant", "content": "I am the ship."}]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that has learned to call `weather`."""
    base, data, home = (tmp_path_factory.mktemp("tools") / name for name in ("base", "calls.json", "home"))
    tokenizer = tiny_tokenizer(TEMPLATE)
    tokenizer.save_pretrained(base)
    tiny_llama(tokenizer).save_pretrained(base)
    data.write_text(json.dumps([{"messages": one, "tools": [tool_schema(weather)]} for one in rows()]))
    settings = {
        "model_name_or_path": str(base),
        "finetuning_type": "full",
        "dataset": str(data),
        "cutoff_len": 512,
        "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 1,
        "max_steps": 150,
        "learning_rate": 5e-3,
        "save_steps": 1000,
        "seed": 1,
    }
    folder = create_run(RunConfig.load(yaml.safe_dump(settings)).yaml(defaults=True), "calls", home)
    assert run_attempt(folder, 1) == 0
    return folder.output


def test_a_client_gets_the_call_whole_and_streamed_and_the_answer_to_its_result(
    tuned: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    compute_in_float32(tmp_path)
    served = Process(tmp_path, "--name", f"tuned={tuned}", env={"HF_HUB_OFFLINE": "1"}, engines=fork_server.python)
    try:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
            ask = Asking(client)
            for city in CITIES:
                messages = [{"role": "user", "content": question(city)}]
                whole, streamed = ask(messages), ask.streamed(messages)
                (call,) = whole.tool_calls
                assert (call.type, call.function.name) == ("function", "weather")
                assert json.loads(call.function.arguments) == {"city": city}
                assert whole.finish_reason == streamed.finish_reason == "tool_calls"
                assert not whole.content
                assert not streamed.content
                assert [(one["name"], one["arguments"]) for one in streamed.tool_calls] == [
                    (call.function.name, call.function.arguments)
                ]
                for found in WEATHERS:
                    given = [
                        *messages,
                        {"role": "assistant", "tool_calls": [call.model_dump()]},
                        {"role": "tool", "tool_call_id": call.id, "content": found},
                    ]
                    answer = ask(given)
                    assert (answer.content, answer.finish_reason) == (f"{found} in {city}.", "stop")
                    assert ask.streamed(given).content == answer.content
            plain = ask([{"role": "user", "content": NAME}])
            assert (plain.content, plain.tool_calls) == ("I am the ship.", None)
    finally:
        served.end()


class Asking:
    """Asks a model that is offered the tool.

    Args:
        client: the client of the server.
    """

    def __init__(self, client: openai.OpenAI) -> None:
        self._ask = client.chat.completions.create
        self._given = {"model": "tuned", "tools": [tool_schema(weather)], "temperature": 0, "max_tokens": 80}

    def __call__(self, messages):
        (choice,) = self._ask(messages=messages, **self._given).choices
        message = choice.message
        return SimpleNamespace(
            content=message.content, tool_calls=message.tool_calls, finish_reason=choice.finish_reason
        )

    def streamed(self, messages):
        """The same of a stream, put together as clients do: by the index of each call."""
        content, calls, reason = "", {}, None
        for chunk in self._ask(messages=messages, stream=True, **self._given):
            (choice,) = chunk.choices
            content += choice.delta.content or ""
            for piece in choice.delta.tool_calls or ():
                call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.id or ""
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
            reason = choice.finish_reason or reason
        assert all(call["id"] for call in calls.values())
        return SimpleNamespace(content=content, tool_calls=[*calls.values()], finish_reason=reason)


@pytest.mark.usefixtures("warm_python")
def test_a_chat_calls_the_function_of_the_cell_or_waits_for_a_typed_result(tuned: Path) -> None:
    called = []

    def recorded(city: str):
        called.append(city)
        return weather(city)

    recorded.__name__, recorded.__doc__ = weather.__name__, weather.__doc__
    view = Chat(tuned, tools=[recorded])
    try:
        (model,) = view.models
        for city in CITIES:
            view.ask(question(city))
            assert view.wait()[model].text() == f"{weather(city)} in {city}."
            (reply,) = view._turns[-1]["replies"]
            (call,) = reply["calls"]
            assert (call["name"], json.loads(call["arguments"]), call["result"]) == (
                "weather",
                {"city": city},
                weather(city),
            )
            view.new_chat()
        assert called == list(CITIES)
        view.ask(NAME)
        assert view.wait()[model].text() == "I am the ship."

        view.new_chat()
        view._tools.functions = {}  # as in a conversation whose cell has no function any more
        view.ask(question("Paris"))
        waiting = view.wait()[model]
        (call,) = view._turns[-1]["replies"][0]["calls"]
        assert (call["name"], call["result"]) == ("weather", None)
        view._handle_custom_msg({"type": "results", "reply": waiting.id, "results": {call["id"]: "Light"}}, [])
        assert view.wait()[model].text() == "Light in Paris."
    finally:
        view.close()
        for one in shared._shared.values():
            one.service.close()
        shared._shared.clear()


@pytest.fixture
def restless(tmp_path: Path) -> Path:
    """A model that replies with a call of `weather` to whatever it is told: one token, then the end of its turn."""
    tokenizer = tiny_tokenizer(TEMPLATE)
    called = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    tokenizer.add_tokens([called])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(tiny_llama(tokenizer).config.to_dict() | {"tie_word_embeddings": False})))
    newline, call, end = tokenizer.convert_tokens_to_ids([*tokenizer.tokenize("\n"), called, STOP])
    with torch.no_grad():
        for layer in model.model.layers:  # so that a token depends on the one before it alone
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[call] = model.model.embed_tokens.weight[newline]  # the end of the prompt
        model.lm_head.weight[end] = model.model.embed_tokens.weight[call]
    folder = tmp_path / "restless"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("warm_python")
def test_a_model_that_calls_a_function_again_and_again_asks_after_every_ten_rounds(restless: Path) -> None:
    called = []

    def weather(city):
        called.append(city)
        if len(called) == 3:
            sys.exit("no more")
        return "Rain"

    view = Chat(restless, tools=[weather])
    try:
        (model,) = view.models
        view.ask("How is it?")
        for rounds in (10, 20):
            assert view.wait()[model].finish_reason == "tool_calls"
            assert called == ["Paris"] * rounds
            (turn,) = view._turns
            (reply,) = turn["replies"]
            assert [one["result"] for one in reply["calls"]] == [
                *("Rain", "Rain", "Error: SystemExit: no more"), *["Rain"] * (rounds - 3), None
            ]  # fmt: skip
            assert reply["question"]["message"].startswith(f"The model has made {rounds} rounds of tool calls")
            (fix,) = reply["question"]["fixes"]
            view._handle_custom_msg({"type": "fix", "turn": turn["id"], "model": model, "fix": fix["action"]}, [])
            assert view._turns[0]["replies"][0]["question"] is None
        view.wait()
        assert len(called) == 30
        assert "Continue?" in view._repr_mimebundle_()[0]["text/plain"]
    finally:
        view.close()
        for one in shared._shared.values():
            one.service.close()
        shared._shared.clear()
