"""Models by name, in processes of their own: started, shared, stopped, killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

from llf_core.chat import engine_process
from llf_core.chat.chat_engine import EngineSettings
from llf_core.chat.request import ChatRequest, ChatSampling, Failed, Finished, Piece, Started
from llf_core.chat.server_engine import VLLMEngine
from llf_core.chat.service import ChatService
from llf_core.chat.target import TargetError
from llf_core.config.declaration import ChatEngineDeclaration
from llf_core.config.registry import declared
from llf_core.models.errors import ModelError
from llf_core.runs import create_run
from tests.hostile import evil_model
from tests.processes import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.launches
PATIENCE = 120.0  # seconds
ASK = ChatRequest(messages=({"role": "user", "content": "What is 1 plus 2?"},), max_tokens=12)
ENDLESS = ChatRequest(
    messages=ASK.messages, max_tokens=60_000, sampling=ChatSampling(logit_bias={0: -100.0, 2: -100.0})
)
"""Of the model `endless_model_dir`, which cannot end it."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ChatService]:
    made = ChatService(home=tmp_path)
    try:
        yield made
    finally:
        made.close()


def text(events: list) -> str:
    assert isinstance(events[0], Started), events
    assert isinstance(events[-1], Finished), events
    return "".join(one.text for one in events if isinstance(one, Piece))


def wait(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def processes() -> list[psutil.Process]:
    return running(psutil.Process().children(recursive=True), "llf_core.chat.worker_process")


def test_adapters_share_a_process_and_reply_differently(service, tiny_model_dir, adapters):
    service.add(tiny_model_dir, "base")
    for name, folder in adapters.items():
        service.add(folder, name)
    replies = {name: text(service.reply(name, ASK)) for name in service.targets}
    assert len(set(replies.values())) == 4
    assert len(processes()) == 1
    assert replies == {name: text(service.reply(name, ASK)) for name in reversed(service.targets)}
    state = service.state("first")
    assert (state.phase, state.device) == ("ready", "cpu")
    assert state.memory_bytes > state.weight_bytes > 0
    assert state.context == 1024


@pytest.mark.usefixtures("warm_python")
def test_a_cancelled_reply_ends_at_once(service, endless_model_dir):
    service.add(endless_model_dir, "base")
    text(service.reply("base", ASK))
    events, begun, ended = [], threading.Event(), threading.Event()

    def receive(event) -> None:
        events.append(event)
        (ended if isinstance(event, Finished | Failed) else begun).set()

    ticket = service.submit("base", ENDLESS, receive)
    assert begun.wait(PATIENCE)
    ticket.cancel()
    assert ended.wait(PATIENCE)
    assert events[-1].reason == "cancelled"
    assert events[-1].completion_tokens < ENDLESS.max_tokens


@pytest.mark.usefixtures("warm_python")
def test_a_reply_is_cancelled_at_once_while_the_model_is_loading(service, endless_model_dir):
    service.add(endless_model_dir, "base")
    events, phases = [], []
    service.watch(lambda _, state: phases.append(state.phase))
    ticket = service.submit("base", ENDLESS, events.append)
    assert service.state("base").phase == phases[0] == "starting"
    ticket.cancel()
    [cancelled] = events
    assert cancelled.reason == "cancelled"
    assert text(service.reply("base", ASK))
    assert events == [cancelled]


@pytest.mark.usefixtures("warm_python")
def test_a_killed_process_is_a_sentence_and_the_next_request_starts_another(service, endless_model_dir):
    service.add(endless_model_dir, "base")
    expected = text(service.reply("base", ASK))
    events, ended = [], threading.Event()
    service.submit("base", ENDLESS, lambda one: (events.append(one), isinstance(one, Failed) and ended.set()))
    wait(lambda: any(isinstance(one, Started) for one in events))
    os.kill(processes()[0].pid, signal.SIGKILL)
    assert ended.wait(PATIENCE)
    assert "ended by SIGKILL. Check that enough memory is free" in events[-1].message
    assert text(service.reply("base", ASK)) == expected


@pytest.mark.usefixtures("warm_python")
def test_an_adapter_that_is_deleted_while_in_use_replies_until_its_process_ends(
    service, tiny_model_dir, adapters, tmp_path
):
    folder = tmp_path / "first"
    shutil.copytree(adapters["first"], folder)
    service.add(tiny_model_dir, "base")
    service.add(folder, "first")
    before = text(service.reply("first", ASK))
    shutil.rmtree(folder)
    assert text(service.reply("first", ASK)) == before
    (process,) = processes()
    service.stop("first")
    wait(lambda: not process.is_running())
    *_, last = service.reply("first", ASK)
    assert isinstance(last, Failed)
    assert str(folder) in last.message
    shutil.copytree(adapters["first"], folder)  # the process goes on, and the next request tries again
    assert text(service.reply("first", ASK)) == before
    assert len(text(service.reply("base", ASK))) > 0


@pytest.mark.usefixtures("warm_python")
def test_another_adapter_takes_a_name_over(service, tiny_model_dir, adapters):
    for name, folder in adapters.items():
        service.add(folder, name)
    first, second = (text(service.reply(name, ASK)) for name in ("first", "second"))
    assert first != second
    old, new = service.targets["first"], service.targets["second"].named("first")
    service.targets["first"] = new  # as `replace` leaves it, if a request for the old one comes while it runs
    assert text(service.reply("first", ASK)) == second
    service.targets["first"] = old
    assert text(service.reply("first", ASK)) == first


def test_an_engine_of_a_package_that_is_in_another_one_may_be_missing(service, tmp_path, tiny_model_dir, monkeypatch):
    engine = replace(declared(ChatEngineDeclaration)["vllm"], package="no_such_package.engine")
    monkeypatch.setattr("llf_core.chat.service.declared", lambda _: {"vllm": engine})
    (tmp_path / "chat.yaml").write_text(f"model_name_or_path: {tiny_model_dir}\ninfer_backend: vllm\n")
    service.add(tmp_path / "chat.yaml")
    assert service.reply("chat", ASK)[-1].message == "vLLM is not installed, and infer_backend is vllm."


def test_an_engine_that_fails_while_it_is_being_made_is_shown_as_failed(service, tiny_model_dir, monkeypatch):
    failed = threading.Event()

    class Fails(VLLMEngine):
        def command(self, config):
            raise ModelError("It cannot be served.")

        def tell(self, state):
            super().tell(state)
            if state.phase == "failed":
                failed.set()

        @property
        def state(self):
            state = self._state
            if threading.current_thread() is threading.main_thread() and state.phase == "starting":
                failed.wait(0.2)
            return state

    monkeypatch.setattr("llf_core.chat.service._engine_class", lambda _: Fails)
    service.add(tiny_model_dir, "base")
    service.start("base")
    assert failed.wait(PATIENCE)
    assert service.state("base").reason == "It cannot be served."


def test_a_process_that_reads_nothing_is_closed(tmp_path, monkeypatch):
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(100)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engine_process, "MODULE", "sleeps")
    monkeypatch.setattr(engine_process, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(engine_process, "MAX_DIRECT", 10_000_000)
    engine = engine_process.EngineProcess("", EngineSettings(), lambda _: None)
    events = []
    large = ChatRequest(prompt="a" * 1_000_000)  # more than a pipe holds
    threading.Thread(target=engine.submit, args=(large, events.append), daemon=True).start()
    wait(engine._pipe.locked)
    engine.close()
    assert engine.process.wait(PATIENCE) == -signal.SIGKILL
    wait(lambda: events)
    assert "closed before the reply was complete" in events[0].message


@pytest.mark.usefixtures("warm_python")
def test_an_idle_process_ends_and_starts_again(tmp_path, tiny_model_dir):
    service = ChatService(home=tmp_path, idle_seconds=0.5)
    states = []
    service.watch(lambda name, state: states.append((name, state.phase)))
    try:
        service.add(tiny_model_dir, "base")
        expected = text(service.reply("base", ASK))
        wait(lambda: service.state("base").phase == "stopped")
        assert "its memory is free" in service.state("base").reason
        assert processes() == []
        assert text(service.reply("base", ASK)) == expected
    finally:
        service.close()
    phases = [phase for _, phase in states]
    assert phases.index("starting") < phases.index("ready") < phases.index("stopped")


@pytest.mark.usefixtures("warm_python")
def test_the_process_ends_when_its_last_model_is_removed(service, tiny_model_dir, adapters):
    service.add(tiny_model_dir, "base")
    service.add(adapters["first"], "first")
    text(service.reply("first", ASK))
    service.remove("first")
    assert text(service.reply("base", ASK))
    service.remove("base")
    assert processes() == []
    assert service.reply("base", ASK)[-1].kind == "model_gone"


@pytest.mark.usefixtures("warm_python")
def test_a_model_that_cannot_be_loaded_is_a_sentence(service, tiny_model_dir, adapters, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    service.add(broken, "broken")
    [failed] = service.reply("broken", ASK)
    assert isinstance(failed, Failed)
    assert "broken" in failed.message
    assert service.state("broken").phase == "failed"
    service.add(adapters["first"], "first")
    for file in adapters["first"].iterdir():  # what is gone when it is loaded
        (tmp_path / file.name).write_bytes(file.read_bytes())
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "adapter_config.json").write_bytes((adapters["first"] / "adapter_config.json").read_bytes())
    service.add(gone, "gone")
    assert "adapter_model.safetensors" in service.reply("gone", ASK)[-1].message
    assert text(service.reply("first", ASK))


@pytest.mark.usefixtures("warm_python")
def test_code_that_is_not_allowed_is_shown_and_does_not_run(service, tiny_model_dir, tmp_path):
    mark = tmp_path / "it-ran"
    evil_model(tmp_path / "evil", tiny_model_dir, mark)
    (tmp_path / "evil.yaml").write_text(f"model_name_or_path: {tmp_path / 'evil'}\ntrust_remote_code: true\n")
    service.add(tmp_path / "evil.yaml", "evil")
    [failed] = service.reply("evil", ASK)
    assert failed.kind == "untrusted"
    assert service.state("evil").code[0]["files"]
    assert not mark.exists()


@pytest.mark.usefixtures("warm_python")
def test_a_base_without_a_template_gets_that_of_a_run(service, tiny_model_dir, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model_dir, bare)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = bare / name
        if name.endswith(".json"):
            settings = json.loads(file.read_text())
            settings.pop("chat_template", None)
            file.write_text(json.dumps(settings))
        else:
            file.unlink(missing_ok=True)
    service.add(bare, "bare")
    assert "template" in service.reply("bare", ASK)[-1].message
    service.remove("bare")
    (tmp_path / "chat.yaml").write_text(f"model_name_or_path: {bare}\ntemplate: chatml\n")
    service.add(tmp_path / "chat.yaml", "named")
    service.add(tiny_model_dir, "own")
    assert text(service.reply("named", ASK)) == text(service.reply("own", ASK))
    run = create_run(
        yaml.safe_dump({"model_name_or_path": str(bare), "template": "chatml", "dataset": "x"}), "r", tmp_path
    )
    service.add(f"{run.id}@base", "base of a run")
    assert text(service.reply("base of a run", ASK)) == text(service.reply("own", ASK))


@pytest.mark.usefixtures("warm_python")
def test_too_many_requests_fail_at_once_and_one_that_is_no_json_does_not_count(tmp_path, endless_model_dir):
    service = ChatService(home=tmp_path, max_waiting=2)
    try:
        service.add(endless_model_dir, "base")
        done = []
        with pytest.raises(TypeError):
            service.submit("base", ChatRequest(prompt="a", template_options={"a": object()}), done.append)
        tickets = [service.submit("base", ENDLESS, done.append) for _ in range(3)]
        assert [one.kind for one in done if isinstance(one, Failed)] == ["busy"]
        for ticket in tickets:
            ticket.cancel()
        wait(lambda: sum(isinstance(one, Finished) for one in done) == 2)
    finally:
        service.close()


@pytest.mark.usefixtures("warm_python")
def test_a_closed_service_says_so(service, tiny_model_dir):
    service.add(tiny_model_dir, "base")
    service.close()
    assert "was closed" in service.reply("base", ASK)[-1].message


def test_an_unknown_model_is_a_sentence(service):
    with pytest.raises(TargetError, match="Expected one of: none"):
        service.state("x")
