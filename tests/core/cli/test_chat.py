"""`llf chat` with a tiny model: replies, commands, Ctrl-C, several models, JSON."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.chat.conversation import new_conversation, open_conversation
from llf_core.chat.request import ChatSampling, Piece
from llf_core.chat.service import ChatService
from llf_core.cli.chat_session import ChatSession, ReplyPrinter
from llf_core.untrusted import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.forking import ForkServer


@pytest.fixture(scope="module")
def service(
    tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[ChatService]:
    """Two names of one model, in one process."""
    service = ChatService(home=tmp_path_factory.mktemp("home"))
    for name in ("one", "two"):
        service.add(tiny_model_dir, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(fork_server.python))
        yield service
    service.close()


def talk(
    service: ChatService,
    tmp_path: Path,
    *lines: str,
    names: tuple[str, ...] = ("one",),
    max_tokens: int = 12,
    sampling: ChatSampling = ChatSampling(temperature=1.0, seed=1),  # noqa: B008 - never changed
) -> ChatSession:
    session = ChatSession(
        service,
        list(names),
        lambda: new_conversation(tmp_path),
        sampling=sampling,
        max_tokens=max_tokens,
    )
    left = iter(lines)

    def read(_: str) -> str:
        line = next(left, None)
        if line is None:
            raise EOFError
        return line

    session.run(read)
    return session


def texts(session: ChatSession, name: str = "") -> list[tuple[str, str]]:
    return [(one.role, one.text()) for one in session.conversation.path(name)]


def test_replies_commands_and_files(
    service: ChatService, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = talk(
        service, tmp_path, "/system Be brief.", "Hello", "/again", "Bye", "/undo", "More", "/save chat.md",
        "/save chat.json", "/save chat.jsonl", "/save chat.md", "/nothing", "/exit", "never asked",
    )  # fmt: skip
    said = capsys.readouterr()
    path = session.conversation.path()
    assert [(one.role, one.text()) for one in path if one.role == "user"] == [("user", "Hello"), ("user", "More")]
    assert len(session.conversation.siblings(path[1].id)) == 2
    assert visible(path[1].text()) in said.out
    assert visible(path[1].text()) != path[1].text()  # the random text has a control character
    assert path[1].usage["completion_tokens"] == 12
    assert path[1].finish_reason == "length"
    assert "chat.md already exists" in said.err
    assert "There is no command /nothing" in said.err
    assert (tmp_path / "chat.md").read_text().startswith("# Hello")
    messages = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
    (row,) = (json.loads(line) for line in (tmp_path / "chat.jsonl").read_text().splitlines())
    assert row["messages"] == messages
    assert open_conversation(session.conversation.id, tmp_path).messages == session.conversation.messages


def test_two_models_answer_one_after_the_other(
    service: ChatService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = talk(service, tmp_path, "Hello", "Again?", "/undo", names=("one", "two"))
    said = capsys.readouterr().out
    assert said.index("one\n") < said.index("two\n")
    assert [role for role, _ in texts(session, "one")] == ["user", "assistant"]
    assert session.conversation.path("one")[1].target == "one"
    assert session.conversation.path("two")[1].target == "two"
    assert texts(session, "one") == texts(session, "two")


def test_ctrl_c_stops_a_reply_and_the_next_one_comes(
    service: ChatService, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take: Callable[[ReplyPrinter, Any], bool] = ReplyPrinter.take
    pressed = False

    def pressing(printer: ReplyPrinter, event: Any) -> bool:
        nonlocal pressed
        ended = take(printer, event)
        if isinstance(event, Piece) and not pressed:
            pressed = True
            signal.raise_signal(signal.SIGINT)
        return ended

    monkeypatch.setattr(ReplyPrinter, "take", pressing)
    session = talk(service, tmp_path, "Hello", "Once more")
    path = session.conversation.path()
    assert "Stopped." in capsys.readouterr().err
    assert pressed
    assert path[1].text() == "" or path[1].finish_reason in {"cancelled", "length"}
    assert (path[-1].role, path[-1].finish_reason) == ("assistant", "length")


@pytest.mark.usefixtures("warm_python")
def test_a_killed_process_is_said_and_the_next_question_starts_another(
    endless_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ChatService(home=tmp_path)
    service.add(endless_model_dir, "one")
    take: Callable[[ReplyPrinter, Any], bool] = ReplyPrinter.take
    killed: list[int] = []

    def killing(printer: ReplyPrinter, event: Any) -> bool:
        if isinstance(event, Piece) and not killed:
            (engine,) = service._processes.values()
            assert engine.process is not None
            killed.append(engine.process.pid)
            engine.process.kill()
        return take(printer, event)

    monkeypatch.setattr(ReplyPrinter, "take", killing)
    try:
        # So long a reply is not complete when its first word is shown.
        session = talk(
            service,
            tmp_path,
            "Hello",
            "Once more",
            max_tokens=3000,
            sampling=ChatSampling(logit_bias={0: -100.0, 2: -100.0}),
        )
    finally:
        service.close()
    said = capsys.readouterr()
    assert "The process with the model was ended by SIGKILL." in " ".join(said.err.split())
    path = session.conversation.path()
    assert next(one for one in path if one.role == "assistant").finish_reason == "failed"
    assert path[-1].finish_reason in {"length", "stop"}


def test_one_message_as_json_and_from_stdin(llf: Any, tiny_model_dir: Path) -> None:
    done = llf("chat", tiny_model_dir, "--json", "--max-tokens", "5", input="Hello\n")
    assert done.exit_code == 0, done.output
    (reply,) = json.loads(done.stdout)["replies"]
    assert reply["usage"]["completion_tokens"] <= 5
    assert reply["finish_reason"] in {"length", "stop"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-of-this-name", "-m", "hi"], "No model is called"),
        (["smollm2-135m-instruct", "-m", " "], "The message is empty"),
        (["smollm2-135m-instruct", "-m", "hi", "--top-p", "2"], "top_p is 2.0"),
    ],
)
def test_what_cannot_be_asked_is_said(llf: Any, arguments: list[str], said: str) -> None:
    done = llf("chat", *arguments)
    assert done.exit_code != 0
    assert said in str(done.exception)


def test_conversations_are_listed_deleted_and_restored(llf: Any, llf_home: Path) -> None:
    chat = new_conversation(llf_home)
    chat.add("assistant", "Hi.", parent=chat.add("user", "[b]What\x1b[2J is yellow?").id, target="one")
    listed = llf("chats", "list").stdout
    assert listed.splitlines() == [
        f"{chat.id}  2 messages, one",
        "  [b]What\\x1b[2J is yellow?",
        "1 of 1 conversation",
    ]
    assert f"llf chats restore {chat.id}" in " ".join(llf("chats", "delete", chat.id).stdout.split())
    assert json.loads(llf("chats", "list", "--json").stdout) == {"total": 0, "conversations": []}
    assert llf("chats", "restore", chat.id).exit_code == 0
    (row,) = json.loads(llf("chats", "list", "--json").stdout)["conversations"]
    assert (row["id"], row["messages"], row["targets"]) == (chat.id, 2, ["one"])
    shutil.copy(chat.file, llf_home / "copy")
    llf("chats", "delete", chat.id)
    shutil.move(llf_home / "copy", chat.file)
    said = " ".join(llf("chats", "delete", chat.id).stdout.split())
    assert "since the bin has another one with its id" in said
    (other,) = {path.stem for path in (llf_home / "bin" / ".chats").iterdir()} - {chat.id}
    assert said.endswith(f"llf chats restore {other}")
    assert llf("chats", "restore", other).exit_code == 0
    for command in ("delete", "restore"):
        refused = llf("chats", command, "20261127-142530-0a1b2c3d")
        assert refused.exit_code == 1
        assert "no conversation 20261127-142530-0a1b2c3d" in str(refused.exception)
    assert "is not the id of a conversation" in str(llf("chats", "delete", "../runs").exception)
