"""The file of a conversation: its tree, two writers, damaged and hostile lines, the list and the bin, exports."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from llf_core.chat.conversation import Conversation, ConversationError, new_conversation, open_conversation
from llf_core.chat.conversation_list import (
    as_markdown,
    as_openai,
    as_rows,
    delete_conversation,
    list_conversations,
    newest_conversations,
    restore_conversation,
)
from llf_core.chat.kept_examples import keep_example
from llf_core.data.formats import OpenAI
from llf_core.runs import clean
from llf_core.untrusted import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def texts(conversation: Conversation, target: str = "") -> list[str]:
    return [one.text() for one in conversation.path(target)]


def test_branches_are_siblings_and_the_chosen_path_comes_back(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    question = chat.add("user", "one")
    first = chat.add("assistant", "first", parent=question.id, target="base")
    second = chat.add("assistant", "second", parent=question.id, target="base")
    assert texts(chat) == ["one", "second"]
    chat.add("user", "more", parent=first.id)
    assert texts(chat) == ["one", "first", "more"]
    assert chat.siblings(first.id) == (first.id, second.id)
    chat.choose(second.id)
    assert texts(chat) == ["one", "second"]
    chat.add("user", "uno", edited_from=question.id)
    assert texts(chat) == ["uno"]
    chat.choose(first.id)
    assert texts(chat) == ["one", "first", "more"]
    chat.choose(question.id)
    assert texts(chat) == ["one", "first", "more"]
    again = open_conversation(chat.id, tmp_path)
    assert texts(again) == ["one", "first", "more"]
    assert [one.text() for one in again.path_to(second.id)] == ["one", "second"]
    assert again.title == "one"
    again.rename("Numbers")
    again.set(system="Count.", temperature=0.5)
    again.set(temperature=0.7)
    chat.refresh()
    assert (chat.title, chat.settings) == ("Numbers", {"system": "Count.", "temperature": 0.7})
    assert chat.request_messages(chat.path())[0] == {"role": "system", "content": "Count."}


def test_each_model_has_its_own_history(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    both = chat.ask("hello", ["base", "tuned"])
    assert both["base"] is both["tuned"]
    for name in both:
        chat.add("assistant", f"I am {name}", parent=both[name].id, target=name)
    later = chat.ask("again", ["base", "tuned"])
    assert later["base"].turn == later["tuned"].turn != ""
    assert texts(chat, "base") == ["hello", "I am base", "again"]
    assert texts(chat, "tuned") == ["hello", "I am tuned", "again"]
    chat.choose(later["base"].id, "new")
    assert texts(chat, "new") == ["hello", "I am base", "again"]
    assert texts(chat, "tuned") == ["hello", "I am tuned", "again"]


def test_a_path_may_end_before_what_was_said(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    question = chat.add("user", "one")
    reply = chat.add("assistant", "first", parent=question.id)
    chat.add("user", "more", parent=reply.id)
    chat.choose(reply.id, last=True)
    assert texts(open_conversation(chat.id, tmp_path)) == ["one", "first"]
    chat.choose(None)
    assert texts(open_conversation(chat.id, tmp_path)) == []
    assert chat.end() is None
    chat.choose(question.id)
    assert texts(chat) == ["one", "first", "more"]


def test_two_writers_see_the_messages_of_each_other(tmp_path: Path) -> None:
    one = new_conversation(tmp_path)
    question = one.add("user", "hello")
    other = open_conversation(one.id, tmp_path)
    reply = other.add("assistant", "hi", parent=question.id)
    assert one.refresh() == [reply.id]
    other.change(reply.id, content="hi there", finish_reason="stop", rating="good")
    assert one.refresh() == [reply.id]
    assert one.messages[reply.id].rating == "good"
    assert one.messages == other.messages


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("## User\n```sh\n# code\n```\n# Title\n```\n# open", "#### User\n```sh\n# code\n```\n### Title\n```\n# open"),
        ("````md\n```sh\n# code\n```\n# code\n````\n# Title", "````md\n```sh\n# code\n```\n# code\n````\n### Title"),
        ("1. Do:\n   ```\n# code\n   ```\n# Title", "1. Do:\n   ```\n# code\n   ```\n### Title"),
        ("~~~\n# code\n~~~\n# Title", "~~~\n# code\n~~~\n### Title"),
        ("```a``` is code.\n# Title", "```a``` is code.\n### Title"),
    ],
)
def test_headings_of_a_message_are_told_from_those_of_messages(tmp_path: Path, text: str, shown: str) -> None:
    chat = new_conversation(tmp_path)
    chat.add("user", text)
    assert as_markdown(chat).split("## User\n", 1)[1].strip() == shown


def test_a_torn_line_loses_only_itself(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    chat.add("user", "kept")
    with chat.file.open("ab") as file:
        file.write(b'{"type":"message","id":"x","parent":nu')
    after = open_conversation(chat.id, tmp_path)
    after.add("user", "after")
    assert [one.text() for one in open_conversation(chat.id, tmp_path).messages.values()] == ["kept", "after"]


def test_hostile_lines_are_skipped(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    question = chat.add("user", "hello")
    hostile = [
        {"type": "message", "id": "a", "parent": "b", "role": "user"},
        {"type": "message", "id": "b", "parent": "b", "role": "user"},
        {"type": "message", "id": question.id, "parent": None, "role": "user", "content": "replaced"},
        {"type": "message", "id": "c", "parent": None, "role": "root"},
        {"type": "message", "id": "d", "parent": None, "role": "tool", "content": [1]},
        {"type": "message", "id": ["e"], "parent": None, "role": "user"},
        {"type": "message", "id": "f", "parent": None, "role": "assistant", "tool_calls": [{}]},
        {"type": "message", "id": "g", "parent": None},
        {"type": "message", "id": "h", "role": "user"},
        {"type": "change", "id": question.id, "content": 3},
        {"type": "change", "id": question.id, "parent": question.id},
        {"type": "choose", "message": {}, "target": []},
        {"type": "settings", "settings": 1},
        {"type": ["title"]},
        {"type": "conversation", "created": 10**400},
    ]
    chat.file.write_bytes(chat.file.read_bytes() + "".join(json.dumps(one) + "\n" for one in hostile).encode())
    again = open_conversation(chat.id, tmp_path)
    assert texts(again) == ["hello"]
    assert list(again.messages) == [question.id]


@pytest.mark.parametrize("name", ["../../etc/passwd", "20261127-142530-0A1B2C3D", ""])
def test_an_id_is_not_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversationError, match="is not the id of a conversation"):
        open_conversation(name, tmp_path)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    question = chat.add("user", "hello")
    with pytest.raises(ConversationError, match="has no message 'x'"):
        chat.add("assistant", "hi", parent="x")
    with pytest.raises(ConversationError, match="parent of a message cannot change"):
        chat.change(question.id, parent=None)
    with pytest.raises(ConversationError, match="rating of a message is 'great'"):
        chat.change(question.id, rating="great")
    with pytest.raises(ConversationError, match="Expected at most"):
        chat.add("user", "x" * (9 << 20))
    assert texts(open_conversation(chat.id, tmp_path)) == ["hello"]


def test_a_model_reads_code_with_a_password_as_it_was_asked(tmp_path: Path) -> None:
    """Code of a question is no secret of its author: neither a reply nor a kept example may have *** in place of it."""
    code = 'db = connect(user="me", password="swordfish")\npassword: correcthorse'
    chat = new_conversation(tmp_path)
    chat.set(system=code)
    question = chat.add("user", code)
    reply = chat.add("assistant", "", parent=question.id)
    chat.change(reply.id, content=code)
    assert texts(open_conversation(chat.id, tmp_path)) == [code, code]
    kept = keep_example(chat, reply.id)
    (row,) = map(json.loads, kept.file.read_text().splitlines())
    assert [one["content"] for one in row["messages"]] == [code, code, code]


def test_files_are_private_regular_and_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "very-secret-value-123")
    chat = new_conversation(tmp_path)
    shown = chat.add("user", "use very-secret-value-123")
    assert shown.content == "use ***"
    assert stat.S_IMODE(chat.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(chat.file.parent.stat().st_mode) == 0o700
    link = chat.file.with_name("20261127-142530-0a1b2c3d.jsonl")
    link.symlink_to(chat.file)
    with pytest.raises(UnreadableError, match="is a link"):
        open_conversation(link.stem, tmp_path)
    assert [row.id for row in list_conversations(tmp_path)[1]] == [chat.id]


def test_a_list_reads_the_ends_of_a_long_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = new_conversation(tmp_path)
    chat.set(targets=["base"])
    line = {"type": "message", "parent": chat.add("user", "How long?").id, "role": "assistant", "target": "base"}
    with chat.file.open("a") as file:
        for number in range(20_000):
            file.write(json.dumps(line | {"id": f"m{number}", "content": "word " * 50}) + "\n")
    chat.rename("Long")
    size, taken = chat.file.stat().st_size, []
    pread = os.pread

    def counted(*given: int) -> bytes:
        taken.append(len(data := pread(*given)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    _, (row,) = list_conversations(tmp_path)
    assert (row.title, row.targets, row.complete) == ("Long", ("base",), False)
    assert 0 < row.messages < 20_001
    assert sum(taken) < 2_000_000 < size
    taken.clear()
    (found,) = newest_conversations(tmp_path)
    assert found.settings["targets"] == ["base"]
    assert sum(taken) < 2_000_000


def test_list_delete_and_restore(tmp_path: Path) -> None:
    old, new = new_conversation(tmp_path), new_conversation(tmp_path)
    for at, chat in enumerate((old, new)):
        chat.add("assistant", "hi", parent=chat.add("user", f"question {at}").id, target="base")
        os.utime(chat.file, (at, at))
    total, rows = list_conversations(tmp_path, limit=1)
    assert (total, [(row.title, row.messages, row.targets) for row in rows]) == (2, [("question 1", 2, ("base",))])
    delete_conversation(old.id, tmp_path)
    assert list_conversations(tmp_path)[0] == 1
    for write in (lambda: old.ask("more", ["base"]), lambda: old.rename("x"), lambda: old.set(system="x")):
        with pytest.raises(ConversationError, match="was replaced or deleted while it was open"):  # in another view
            write()
    assert texts(restore_conversation(old.id, tmp_path)) == ["question 0", "hi"]
    old.ask("more", ["base"])
    assert texts(open_conversation(old.id, tmp_path)) == ["question 0", "hi", "more"]
    deleted = delete_conversation(old.id, tmp_path)
    clean(tmp_path)
    assert not deleted.exists()
    with pytest.raises(ConversationError, match="The bin has no conversation"):
        restore_conversation(old.id, tmp_path)


def test_the_bin_keeps_both_conversations_of_one_id(tmp_path: Path) -> None:
    """A file that was copied back from a backup, or restored and continued elsewhere, has the id of one in the bin."""
    chat = new_conversation(tmp_path)
    chat.add("user", "first")
    delete_conversation(chat.id, tmp_path)
    again = Conversation(chat.file)
    again.add("user", "second")
    with pytest.raises(ConversationError, match=f"llf chats delete {chat.id}"):
        restore_conversation(chat.id, tmp_path)
    deleted = delete_conversation(chat.id, tmp_path)
    assert deleted.stem != chat.id
    assert texts(restore_conversation(chat.id, tmp_path)) == ["first"]
    assert texts(restore_conversation(deleted.stem, tmp_path)) == ["second"]
    assert {row.id for row in list_conversations(tmp_path)[1]} == {chat.id, deleted.stem}


def test_exports(tmp_path: Path) -> None:
    chat = new_conversation(tmp_path)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    chat.set(system="Be brief.", tools=[tool])
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    at = chat.add("user", [picture, {"type": "text", "text": "Where is it sunny?"}]).id
    at = chat.add("assistant", reasoning="I look.", tool_calls=(CALL,), parent=at, target="base").id
    at = chat.add("tool", "```sunny```", tool_call_id="call_1", parent=at).id
    at = chat.add("assistant", "In Rome.", parent=at, target="base").id
    chat.add("user", "Thanks", parent=at)

    text = as_markdown(chat)
    assert text.index("## System") < text.index("## User") < text.index("```thinking\nI look.\n```")
    assert "Calls `weather`:" in text
    assert "````\n```sunny```\n````" in text

    assert as_openai(chat)["tools"] == [tool]
    assert as_openai(chat)["messages"][2] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "I look.",
        "tool_calls": [CALL],
    }

    (row,) = as_rows(chat)
    assert row["images"] == ["data:image/png;base64,AAAA"]
    assert row["messages"][1]["content"] == "<image>Where is it sunny?"
    read = OpenAI.align(row, {"messages": "messages", "tools": "tools"}, {})
    assert [message["role"] for message in read.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert read.messages[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert read.tools == (tool,)


def test_a_part_without_text_shows_none(tmp_path: Path) -> None:
    conversation = new_conversation(tmp_path)
    odd = [{"type": "text", "text": None}, {"type": "text"}, {"type": "text", "text": ["a"]}, {"type": "image_url"}]
    question = conversation.add("user", [*odd, {"type": "text", "text": "Name a colour."}])
    conversation.add("assistant", "Red.", parent=question.id)
    assert conversation.title == question.text() == "Name a colour."
    (row,) = as_rows(conversation)
    assert row["messages"][0]["content"] == "Name a colour."
    assert not row.get("images")
    assert "None" not in as_markdown(conversation)


def test_the_target_of_a_link_that_is_deleted_stays_as_it_was(llf_home):
    """The age in the bin is set on the entry, and not on a file outside that a link names."""
    conversation = new_conversation()
    conversation.add("user", "one")
    other = llf_home / "other.txt"
    other.write_text("mine")
    os.utime(other, (1, 1))
    path = llf_home / "chats" / f"{conversation.id}.jsonl"
    path.unlink()
    path.symlink_to(other)
    moved = delete_conversation(conversation.id)
    assert moved.is_symlink()
    assert (other.read_text(), other.stat().st_mtime) == ("mine", 1)
