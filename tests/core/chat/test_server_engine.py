"""Engines that are servers of their own, asked by HTTP: `llf serve` stands for vLLM and SGLang, which never run here.

Of those two, their commands, requests and errors are tested.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from llf_core.chat import server_engine
from llf_core.chat.chat_engine import EngineSettings
from llf_core.chat.engine_process import EngineProcess
from llf_core.chat.picture import picture_part
from llf_core.chat.request import ChatRequest, ChatSampling, Failed, Finished, Piece, Started
from llf_core.chat.server_engine import (
    BASE,
    HOST,
    ReplyReader,
    ServerEngine,
    SGLangEngine,
    VLLMEngine,
    error_message,
    reply_chunks,
    request_content,
)
from llf_core.chat.service import ChatService
from llf_core.chat.target import loading_config
from llf_core.models.errors import ModelError
from tests.hostile import evil_model
from tests.tiny import picture_file, save_tiny_llava

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llf_core.chat.request import Event
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


STREAMS = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def chunk(text, **more):
    return {"choices": [{"delta": {"content": text}, **more}]}

streams = {
    "whole": [chunk("Hello"), chunk("", finish_reason="stop"), "[DONE]"],
    "error": [chunk("Hel"), {"error": {"message": "The cache is full.", "code": 400}}, "[DONE]"],
    "cut": [chunk("Hel")],
    "odd": [chunk("Hel"), chunk("lo", logprobs={"content": [{"token": "lo"}]}), "[DONE]"],
    "list": [[1], "[DONE]"],
}
loaded = set()

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = given.get("lora_name")
        wrong = (name in loaded) if "lora_path" in given else name not in loaded
        loaded.symmetric_difference_update({name} if name and not wrong else ())
        self.send_response(400 if name and wrong else 200)
        self.end_headers()
        for one in streams.get(given.get("prompt"), ()):
            self.wfile.write(f"data: {one if one == '[DONE]' else json.dumps(one)}\\n\\n".encode())

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Streams(ServerEngine):
    """Sends what no engine of this machine can be made to send: errors within a stream, and half a stream."""

    title = "The server of the test"

    def command(self, config):
        return [sys.executable, "-c", STREAMS, str(self.port)], {}


@pytest.fixture
def streams(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerEngine]:
    monkeypatch.setattr(server_engine, "IMAGE_CHECK", "json.tool")  # no picture is sent, and it imports transformers
    engine = Streams(yaml.safe_dump({"model_name_or_path": str(tiny_model_dir)}), EngineSettings(), lambda _: None)
    yield engine
    engine.close()


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
            until = time.monotonic() + PATIENCE
            while server.process is None:  # one that starts later would end with the first test
                assert time.monotonic() < until, server.state
                time.sleep(0.01)
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
    server.interrupt(number)  # it has just ended
    until = time.monotonic() + PATIENCE
    while server._cancelled:
        assert time.monotonic() < until
        time.sleep(0.01)


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
    engine.interrupt(0)
    assert engine._cancelled == set()


def test_an_incomplete_stream_is_a_failure(streams):
    assert text(reply(streams, ChatRequest(prompt="whole"))) == "Hello"
    for prompt, kind, said in (
        ("error", "invalid", "The cache is full."),
        ("cut", "engine", "The server of the test broke the reply off: Its stream ended early."),
        ("odd", "engine", "broke the reply off: 'top_logprobs' is not known."),
        ("list", "engine", "broke the reply off: It sent [1]."),
    ):
        failed = reply(streams, ChatRequest(prompt=prompt))[-1]
        assert (failed.kind, said in failed.message) == (kind, True), failed


def test_messages_that_are_none_end_with_a_sentence(streams):
    failed = reply(streams, ChatRequest(messages=("hello",)))[-1]
    assert (failed.kind, "The server of the test cannot be asked" in failed.message) == ("invalid", True)


def test_a_server_is_told_to_sample_from_all_tokens():
    whole = ChatRequest(prompt="a")
    assert request_content(BASE, whole)["top_k"] == -1  # else it takes that of generation_config.json
    assert request_content(BASE, replace(whole, sampling=ChatSampling(top_k=5)))["top_k"] == 5


@pytest.mark.parametrize("sent", [b"data: [1]\n", b"data: {\n", b"data: " + b"[" * 100_000 + b"\n"])
def test_what_is_no_chunk_is_named(sent):
    with pytest.raises(ValueError, match=r"^It sent [\[{]"):
        list(reply_chunks([sent, b"data: [DONE]\n"]))


def test_a_stream_has_comments_and_needs_no_spaces():
    assert list(reply_chunks([b": ping\n", b"\n", b'data:{"a": 1}\n', b"data:[DONE]\n", b"more"])) == [{"a": 1}]


@pytest.mark.parametrize("usage", [7, {"prompt_tokens": "x", "completion_tokens": None}, {"prompt_tokens_details": 1}])
def test_odd_numbers_of_tokens_end_a_reply_all_the_same(usage):
    reader = ReplyReader(time.monotonic())
    assert [
        event.text for event in reader.read({"choices": [{"text": "a"}], "usage": usage}) if isinstance(event, Piece)
    ]
    finished = reader.finished(None)
    assert (finished.reason, finished.prompt_tokens, finished.completion_tokens) == ("stop", 0, 0)


def test_an_error_that_is_no_json_is_shown_as_it_is():
    assert error_message("out of memory") == "out of memory"
    assert error_message('{"error": {"message": "too long"}}') == "too long"
    assert error_message("[" * 100_000).startswith("[[[")


def test_an_adapter_takes_the_name_of_another_once_that_is_unloaded(streams, adapters):
    for folder in (adapters["first"], adapters["second"], adapters["first"]):
        streams.load_adapter("tuned", str(folder))
        assert text(reply(streams, ChatRequest(prompt="whole", adapter="tuned"))) == "Hello"
        streams.unload_adapter("tuned")
    for folder in (adapters["first"], adapters["second"]):
        streams.load_adapter("tuned", str(folder))
        assert text(reply(streams, ChatRequest(prompt="whole", adapter="tuned"))) == "Hello"
    streams.load_adapter("late", "/nowhere")
    assert reply(streams, ChatRequest(prompt="whole", adapter="late"))[-1].kind == "model_gone"
    streams.load_adapter("late", str(adapters["first"]))
    assert text(reply(streams, ChatRequest(prompt="whole", adapter="late"))) == "Hello"


def test_a_server_that_is_still_searching_its_model_holds_up_nothing(tiny_model_dir):
    searching, found = threading.Event(), threading.Event()

    class Searches(Exits):
        def command(self, config):
            searching.set()
            assert found.wait(PATIENCE)
            raise OSError("never asked for")

    states = []
    engine = Searches(yaml.safe_dump({"model_name_or_path": str(tiny_model_dir)}), EngineSettings(), states.append)
    events = []
    engine.submit(ChatRequest(prompt="a"), events.append)
    assert searching.wait(PATIENCE)
    assert engine.state.progress == "Finding the model"
    assert "port" not in vars(engine)  # one that others can take meanwhile
    engine.close()
    assert [one.message for one in events] == ["The engine was closed before the reply was complete."]
    found.set()
    assert (engine.process, engine.state.phase) == (None, "stopped")


def test_code_that_a_server_would_run_is_shown(tiny_model_dir, tmp_path):
    evil_model(tmp_path / "evil", tiny_model_dir, tmp_path / "it-ran")
    config = yaml.safe_dump({"model_name_or_path": str(tmp_path / "evil"), "trust_remote_code": True})
    engine = VLLMEngine(config, EngineSettings(), lambda _: None)
    [failed] = reply(engine, ChatRequest(messages=MESSAGES))
    assert (failed.kind, engine.state.phase) == ("untrusted", "failed")
    assert engine.state.code[0]["files"]
    engine.settings = EngineSettings(trust=True)
    assert "--trust-remote-code" in engine.command(loading_config(config))[0]
    assert not (tmp_path / "it-ran").exists()


def test_what_a_listener_raises_does_not_end_the_engine(streams, caplog):
    def broken(event):
        raise RuntimeError("The view is gone.")

    streams.submit(ChatRequest(prompt="whole"), broken)
    assert text(reply(streams, ChatRequest(prompt="whole"))) == "Hello"
    deadline = time.monotonic() + PATIENCE
    while "The view is gone." not in caplog.text and time.monotonic() < deadline:  # the replies end in any order
        time.sleep(0.05)
    assert "The view is gone." in caplog.text


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
    engine.port, engine.key, engine.settings = 1234, "a-secret-key", EngineSettings()
    return engine.command(loading_config(yaml.safe_dump({"model_name_or_path": str(model), **values})))
