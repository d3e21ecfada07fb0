"""Engines that are servers of their own: asked by HTTP, against a real one; and the commands of vLLM and SGLang."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from llf_core.chat.chat_engine import EngineSettings
from llf_core.chat.engine_process import EngineProcess
from llf_core.chat.events import Failed, Finished, Piece, Started
from llf_core.chat.picture import picture_part
from llf_core.chat.request import ChatRequest, ChatSampling
from llf_core.chat.server_engine import BASE, HOST, ServerEngine
from llf_core.chat.service import ChatService
from llf_core.chat.sglang_engine import SGLangEngine
from llf_core.chat.target import loading_config
from llf_core.chat.vllm_engine import VLLMEngine
from llf_core.models.errors import ModelError
from tests.tiny import picture_file, save_tiny_llava

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llf_core.chat.events import Event
    from tests.forking import ForkServer

PATIENCE = 120.0  # seconds
MESSAGES = ({"role": "user", "content": "What is 1 plus 2?"},)


class LLFServer(ServerEngine):
    """`llf serve` as an engine: a server with OpenAI's API that runs on any machine."""

    title = "The server of the test"
    folder: Path

    def command(self, config):
        file = self.folder / f"{self.port}.yaml"
        file.write_text(self.config)
        model = f"{BASE}={file}"
        start = "from llf_core.cli.entry import main; main()"
        command = [sys.executable, "-c", start, "serve", "--name", model, "--host", HOST]
        return [*command, "--port", str(self.port), "--api-key-env", "THE_KEY"], {"THE_KEY": self.key}


class Exits(ServerEngine):
    title = "The server of the test"

    def command(self, config):
        return [sys.executable, "-c", "import sys; sys.exit('No GPU was found.')"], {}


def reply(engine, request: ChatRequest) -> list[Event]:
    events: list[Event] = []
    done = threading.Event()
    engine.submit(request, lambda one: (events.append(one), isinstance(one, Finished | Failed) and done.set()))
    assert done.wait(PATIENCE)
    return events


def text(events: list[Event]) -> str:
    assert isinstance(events[0], Started), events
    assert isinstance(events[-1], Finished), events
    return "".join(one.text for one in events if isinstance(one, Piece))


@pytest.fixture(scope="module")
def engines(
    tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[tuple[ServerEngine, EngineProcess]]:
    LLFServer.folder = tmp_path_factory.mktemp("served")
    with started(tiny_model_dir, fork_server) as made:
        yield made


@contextmanager
def started(model: Path, fork_server: ForkServer) -> Iterator[tuple[ServerEngine, EngineProcess]]:
    """A model in a server and in our own engine."""
    config = yaml.safe_dump({"model_name_or_path": str(model), "infer_dtype": "float32"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server.python))
        server, own = (one(config, EngineSettings(), lambda _: None) for one in (LLFServer, EngineProcess))
    try:
        yield server, own
    finally:
        server.close()
        own.close()


@pytest.mark.launches
def test_a_server_replies_as_our_own_engine(engines):
    server, own = engines
    for request in (
        ChatRequest(messages=MESSAGES, max_tokens=12),
        ChatRequest(messages=MESSAGES, max_tokens=12, sampling=ChatSampling(temperature=1.0, seed=7)),
        ChatRequest(messages=MESSAGES, max_tokens=12, sampling=ChatSampling(frequency_penalty=2.0)),
        ChatRequest(prompt="What is", max_tokens=8),
    ):
        found, expected = reply(server, request), reply(own, request)
        assert text(found) == text(expected)
        assert (found[-1].reason, found[-1].completion_tokens) == (expected[-1].reason, expected[-1].completion_tokens)
        assert found[-1].prompt_tokens == expected[-1].prompt_tokens
    asked = ChatRequest(messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=2)
    found, expected = (
        [token for one in reply(engine, asked) if isinstance(one, Piece) for token in one.tokens] for engine in engines
    )
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected], abs=1e-5)
    assert [len(one.top) for one in found] == [2] * len(expected)


@pytest.mark.launches
def test_a_cancelled_reply_of_a_server_ends(engines):
    server, _ = engines
    events: list[Event] = []
    begun, ended = threading.Event(), threading.Event()

    def receive(event: Event) -> None:
        events.append(event)
        begun.set()
        if isinstance(event, Finished | Failed):
            ended.set()

    number = server.submit(ChatRequest(messages=MESSAGES, max_tokens=900), receive)
    assert begun.wait(PATIENCE)
    server.cancel(number)
    assert ended.wait(PATIENCE)
    assert events[-1].reason == "cancelled"


@pytest.mark.launches
def test_a_refusal_of_a_server_is_its_sentence(engines):
    server, _ = engines
    [failed] = reply(server, ChatRequest(messages=({"role": "king", "content": "?"},)))
    assert failed.kind == "invalid"
    assert "king" in failed.message
    server.load_adapter("lost", "/nowhere")
    [failed] = reply(server, ChatRequest(messages=MESSAGES, adapter="lost"))
    assert failed.kind == "model_gone"
    assert "No adapter at /nowhere" in failed.message


@pytest.mark.launches
def test_a_server_gets_the_pictures_of_a_vision_model(engines, tmp_path, fork_server):
    save_tiny_llava(tmp_path)
    red, blue = (picture_part(picture_file(color=color, size=(28, 28))) for color in ("red", "blue"))
    words = {"type": "text", "text": "What is it?"}
    with started(tmp_path, fork_server) as (server, own):
        texts = []
        for parts in ([words], [red, words], [blue, words], [red, blue, words]):
            asked = ChatRequest(messages=({"role": "user", "content": parts},), max_tokens=8)
            found, expected = reply(server, asked), reply(own, asked)
            assert text(found) == text(expected)
            assert found[-1].prompt_tokens == expected[-1].prompt_tokens
            texts.append(found[-1].prompt_tokens)
        assert [one - texts[0] for one in texts] == [0, 4, 4, 8]  # a picture is four tokens
        assert server.state.sees_images
        assert own.state.sees_images
        for part in (
            {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}},
            {"type": "image", "image": "/a"},
        ):
            asked = ChatRequest(messages=(*MESSAGES, {"role": "user", "content": [part]}))
            found, expected = reply(server, asked), reply(own, asked)
            assert found == expected
            assert "no address and no file is opened" in found[0].message
    blind, _ = engines
    assert reply(blind, ChatRequest(messages=MESSAGES, max_tokens=1))
    assert blind.state.is_blind
    [failed] = reply(blind, ChatRequest(messages=({"role": "user", "content": [red]},)))
    assert failed.kind == "invalid"
    assert f"{BASE} reads no pictures" in failed.message


def test_a_server_that_does_not_start_is_a_sentence(tiny_model_dir):
    engine = Exits(yaml.safe_dump({"model_name_or_path": str(tiny_model_dir)}), EngineSettings(), lambda _: None)
    [failed] = reply(engine, ChatRequest(messages=MESSAGES))
    assert failed.message == "The server of the test failed: No GPU was found."
    assert not engine.alive


def test_a_server_is_stopped_after_some_time(tiny_model_dir):
    class Waits(Exits):
        def command(self, config):
            return [sys.executable, "-m", "http.server", str(self.port), "--bind", HOST], {}

        def _is_healthy(self):
            return True

    config = yaml.safe_dump({"model_name_or_path": str(tiny_model_dir)})
    engine = Waits(config, EngineSettings(idle_seconds=0.2), lambda _: None)
    end = time.monotonic() + PATIENCE
    while engine.state.phase != "stopped":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "its memory is free" in engine.state.reason


def test_vllm_is_started_with_the_options_of_the_config(tiny_model_dir):
    values = {"vllm_maxlen": 99, "vllm_enforce_eager": True, "vllm_config": {"kv_cache_dtype": "fp8", "seed": 3}}
    command, environment = command_of(VLLMEngine, tiny_model_dir, infer_backend="vllm", **values)
    assert command[command.index("serve") + 1] == str(tiny_model_dir)
    for name, value in {"--max-model-len": "99", "--kv-cache-dtype": "fp8", "--seed": "3", "--host": HOST}.items():
        assert command[command.index(name) + 1] == value
    assert "--enforce-eager" in command
    assert environment["VLLM_API_KEY"] not in " ".join(command)


def test_sglang_is_started_with_the_options_of_the_config(tiny_model_dir):
    command, _ = command_of(SGLangEngine, tiny_model_dir, infer_backend="sglang", sglang_tp_size=2, sglang_maxlen=99)
    for name, value in {"--context-length": "99", "--tp-size": "2", "--model-path": str(tiny_model_dir)}.items():
        assert command[command.index(name) + 1] == value


def test_what_a_server_cannot_load_is_a_sentence(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match="quantization_bit is 4, and vLLM does not quantize as LLF does"):
        command_of(VLLMEngine, tiny_model_dir, quantization_bit=4)
    with pytest.raises(ModelError, match="SGLang cannot merge /a into the base model"):
        command_of(SGLangEngine, tiny_model_dir, adapter_name_or_path="/a")
    (tmp_path / "chat.yaml").write_text(f"model_name_or_path: {tiny_model_dir}\ninfer_backend: vllm\n")
    service = ChatService(home=tmp_path)
    service.add(tmp_path / "chat.yaml")
    [failed] = service.reply("chat", ChatRequest(messages=MESSAGES))
    assert failed.message == "vLLM is not installed, and infer_backend is vllm."
    assert "pip install vllm" in failed.what_to_do


def command_of(kind: type[ServerEngine], model: Path, **values: object) -> tuple[list[str], dict[str, str]]:
    """The command of an engine that is not started."""
    engine = object.__new__(kind)
    engine.port, engine.key = 1234, "a-secret-key"
    return engine.command(loading_config(yaml.safe_dump({"model_name_or_path": str(model), **values})))
