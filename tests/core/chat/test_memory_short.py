"""A process that really runs short of memory, while it loads and in mid-reply: behind `llf serve` and `llf chat`."""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING

import openai
import psutil
import pytest
import yaml

from llf_core.chat.conversation import new_conversation
from llf_core.chat.request import ChatRequest, ChatSampling, Failed, Piece
from llf_core.chat.service import ChatService
from llf_core.cli.chat_session import ChatSession
from tests.core.chat.server.test_serve import Process
from tests.core.chat.short_memory import (
    ENDLESS,
    lift_limit,
    limit,
    limit_to_spare,
    peak,
    save_large_model,
    save_wide_model,
)
from tests.processes import running

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llf_core.chat.request import Event

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.launches,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process"),
]
WORKER = "llf_core.chat.worker_process"
FULL = "Out of memory: the keys and values of the conversation do not fit. Shorten the conversation or max_tokens"
TOO_LARGE = "The model does not fit into the free memory. Free memory of other programs, or choose a smaller or"
ROOM = 100 << 20
"""Bytes that a process may have beyond what the small model needs: less than the weights of the large one, 384 MB."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Config files of a model whose conversations are large, and of one whose weights are."""
    found = {}
    for name, save in (("wide", save_wide_model), ("large", save_large_model)):
        folder = tmp_path_factory.mktemp(name)
        save(folder / name)
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(yaml.safe_dump({"model_name_or_path": str(folder / name), "infer_dtype": "float32"}))
    return found


def workers(served: Process) -> list[psutil.Process]:
    """The running processes with models, that of the smallest first."""
    return sorted(running(served.children(), WORKER), key=lambda one: one.memory_info().vms)


def read_until_full(stream: Iterable[openai.types.chat.ChatCompletionChunk]) -> int:
    """Number of characters that came before the error."""
    texts: list[str] = []
    with pytest.raises(openai.APIError, match=FULL):
        texts.extend(one.choices[0].delta.content or "" for one in stream)
    return len("".join(texts))


@pytest.mark.long
def test_a_server_goes_on_when_memory_is_short(models: dict[str, Path], tmp_path: Path) -> None:
    names = [word for name, path in models.items() for word in ("--name", f"{name}={path}")]
    served = Process(tmp_path, *names, env={"HF_HUB_OFFLINE": "1"})
    try:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=300) as client:

            def ask(model: str, most: int, **fields: object):
                messages = [{"role": "user", "content": "one two"}]
                return client.chat.completions.create(
                    model=model, messages=messages, max_tokens=most, temperature=0, **fields
                )

            expected = ask("wide", 8).choices[0].message.content
            assert ask("large", 2).usage.completion_tokens == 2
            engine, other = workers(served)
            limit(served.process.pid, peak(engine.pid) + ROOM)  # of processes that it starts from now on
            other.kill()
            other.wait(120)
            with pytest.raises(openai.InternalServerError, match=TOO_LARGE) as refused:
                ask("large", 2)
            assert refused.value.status_code == 503
            assert workers(served) == [engine]
            assert ask("wide", 8).choices[0].message.content == expected

            limit_to_spare(engine.pid)
            lengths = []
            for _ in range(2):
                lengths.append(read_until_full(ask("wide", ENDLESS, stream=True)))
                assert ask("wide", 8).choices[0].message.content == expected
            assert lengths[1] >= 0.9 * lengths[0] > 0  # the memory of the reply that failed was free again
            with pytest.raises(openai.InternalServerError, match=FULL) as refused:
                ask("wide", ENDLESS)
            assert (refused.value.status_code, refused.value.code) == (503, "out_of_memory")
            assert engine.is_running()
            lift_limit(engine.pid)
            assert ask("wide", 8).choices[0].message.content == expected
    finally:
        children = served.end()
    assert served.process.returncode == 0
    assert psutil.wait_procs(children, 120)[1] == []


def asked(service: ChatService, home: Path, most: int) -> ChatSession:
    """A chat in a terminal with one question. It is greedy: samples of random weights end by themselves."""
    session = ChatSession(service, ["wide"], lambda: new_conversation(home), sampling=ChatSampling(), max_tokens=most)
    session.ask("one two")
    return session


def test_a_chat_in_a_terminal_goes_on_when_memory_is_short(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service = ChatService(home=tmp_path)
    try:
        service.add(models["wide"], "wide")
        first = asked(service, tmp_path, 4).conversation.path()[-1]
        assert first.finish_reason == "length"
        (engine,) = service._processes.values()
        assert engine.process is not None
        limit_to_spare(engine.process.pid)
        path = asked(service, tmp_path, ENDLESS).conversation.path()
        assert FULL in " ".join(capsys.readouterr().err.split())
        assert [(one.role, one.finish_reason) for one in path] == [("user", ""), ("assistant", "failed")]
        assert path[1].text()  # what was written stays
        again = asked(service, tmp_path, 4).conversation.path()[-1]
        assert again.text() == first.text()
        assert [*service._processes.values()] == [engine]  # the same process
    finally:
        service.close()


def test_a_request_that_does_not_fit_is_a_sentence(models: dict[str, Path], tmp_path: Path) -> None:
    service = ChatService(home=tmp_path)
    try:
        service.add(models["wide"], "wide")
        short = ChatRequest(messages=({"role": "user", "content": "one two"},), max_tokens=4)
        expected = [one.text for one in service.reply("wide", short) if isinstance(one, Piece)]
        (engine,) = service._processes.values()
        assert engine.process is not None
        limit_to_spare(engine.process.pid)
        events: queue.Queue[Event] = queue.Queue()
        long = ChatRequest(messages=({"role": "user", "content": "one " * (32 << 20)},), max_tokens=4)
        service.submit("wide", long, events.put)
        failed = events.get(timeout=120)  # its text is longer than the model's context, whatever its tokens
        assert isinstance(failed, Failed)
        assert failed.kind == "too_long"
        assert [one.text for one in service.reply("wide", short) if isinstance(one, Piece)] == expected
        assert [*service._processes.values()] == [engine]  # the same process
    finally:
        service.close()
