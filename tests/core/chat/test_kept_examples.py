"""Rows kept from a chat: what they hold, that they train, that undo removes them, and that Studio offers them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest

from llf_core.chat.conversation import Conversation, ConversationError, new_conversation
from llf_core.chat.conversation_list import as_rows
from llf_core.chat.kept_examples import keep_example, keep_pair, keep_rating, kept_datasets, undo_kept
from llf_core.chat.picture import picture_url
from llf_core.config import RunConfig
from llf_core.data import prepare
from llf_widgets.forms import suggestions
from tests.tiny import picture_file

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def chat(tmp_path: Path) -> Conversation:
    """A question with two replies; the second is followed by a turn with a tool."""
    chat = new_conversation(tmp_path)
    chat.set(system="Be brief.")
    question = chat.add("user", "Where is it sunny?")
    for text, target in (("Nowhere.", "base"), ("In Rome.", "tuned")):
        last = chat.add("assistant", text, parent=question.id, target=target, sampling={"temperature": 0.7})
    chat.set(tools=[TOOL])
    at = chat.add("user", "Sure?", parent=last.id).id
    at = chat.add("assistant", reasoning="I look.", tool_calls=(CALL,), parent=at, target="tuned").id
    at = chat.add("tool", "sunny", tool_call_id="call_1", parent=at).id
    chat.add("assistant", "Yes.", parent=at, target="tuned")
    return chat


def replies(chat: Conversation) -> list[str]:
    return [one.id for one in chat.messages.values() if one.role == "assistant"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_kept_rows_train(chat: Conversation, tmp_path: Path, tiny_tokenizer: Any) -> None:
    worse, better, _, last = replies(chat)
    keep_example(chat, worse, text="Everywhere.")
    files = {
        "sft": keep_example(chat, last),
        "dpo": keep_pair(chat, better, worse),
        "kto": keep_rating(chat, worse, good=False),
    }
    keep_rating(chat, last, good=True)
    for stage, count in (("dpo", 1), ("sft", 2), ("kto", 2)):
        values = {"model_name_or_path": "some/model", "template": "qwen", "stage": stage}
        config = RunConfig.load(values | {"dataset": str(files[stage].file)}, base=tmp_path)
        report = prepare(config, tiny_tokenizer).report
        assert (report.examples, report.dropped) == (count, []), stage
    (pair,) = rows(files["dpo"].file)
    assert [one["role"] for one in pair["messages"]] == ["system", "user"]
    assert (pair["chosen"]["content"], pair["rejected"]["content"]) == ("In Rome.", "Nowhere.")
    first, second = rows(files["sft"].file)
    assert first["messages"][-1]["content"] == "Everywhere."
    assert second["messages"][4]["tool_calls"] == [CALL]
    assert json.loads(second["tools"]) == [TOOL]
    assert [row["label"] for row in rows(files["kto"].file)] == [False, True]
    assert stat.S_IMODE(files["kto"].file.stat().st_mode) == 0o600


def test_a_row_says_where_it_came_from(chat: Conversation) -> None:
    worse, better, *_ = replies(chat)
    kept = keep_pair(chat, better, worse, dataset="my pairs")
    origin = rows(kept.file)[0]["kept"]
    assert origin.pop("time") > 0
    assert origin == {
        "id": kept.id,
        "conversation": chat.id,
        "messages": [better, worse],
        "targets": ["tuned", "base"],
        "sampling": '[{"temperature": 0.7}, {"temperature": 0.7}]',
    }
    assert chat.messages[better].kept == {kept.file.name: kept.id}


def test_keeping_again_replaces_and_undo_removes(chat: Conversation, tmp_path: Path) -> None:
    worse, better, *_ = replies(chat)
    keep_rating(chat, worse, good=True)
    other = keep_rating(chat, better, good=True)
    kept = keep_rating(chat, worse, good=False)
    assert kept.rows == 2
    assert [row["label"] for row in rows(kept.file)] == [True, False]
    assert chat.messages[worse].rating == "bad"
    undo_kept(chat, worse, kept.file)
    assert [row["kept"]["id"] for row in rows(kept.file)] == [other.id]
    assert (chat.messages[worse].rating, chat.messages[worse].kept) == ("", {})
    undo_kept(chat, worse, kept.file)
    undo_kept(chat, better, kept.file)
    assert not kept.file.exists()
    assert kept_datasets(tmp_path) == []


def test_a_line_that_is_no_row_stays(chat: Conversation) -> None:
    """A line that was broken by hand is not lost when another row is replaced or removed."""
    reply = replies(chat)[0]
    file = keep_example(chat, reply).file
    broken = '{"messages": [{"role": "user", "content": "Why?"}, '
    file.write_text(f"{broken}\n\n{file.read_text()}")
    keep_example(chat, reply, text="Everywhere.")
    first, last = file.read_text().splitlines()
    assert first == broken
    assert json.loads(last)["messages"][-1]["content"] == "Everywhere."
    undo_kept(chat, reply, file)
    assert file.read_text() == f"{broken}\n"


def test_a_row_that_finds_the_disk_full_leaves_the_earlier_one(chat: Conversation) -> None:
    first, second, *_ = replies(chat)
    kept = keep_example(chat, first)
    for edited in (lambda: keep_example(chat, first, text="Everywhere."), lambda: keep_example(chat, second)):
        before = rows(kept.file)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a full disk
        try:
            with pytest.raises(OSError, match="File too large"):
                edited()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert rows(kept.file) == before
        edited()
    assert [row["messages"][-1]["content"] for row in rows(kept.file)] == ["Everywhere.", "In Rome."]


def test_undo_removes_all_pairs_of_a_reply_and_needs_no_file(chat: Conversation) -> None:
    worse, better, *_ = replies(chat)
    third = chat.add("assistant", "In Oslo.", parent=chat.messages[worse].parent).id
    kept = [keep_pair(chat, better, other) for other in (worse, third)]
    other = keep_pair(chat, third, worse)
    assert (other.rows, kept[0].file) == (3, other.file)
    undo_kept(chat, better, other.file)
    assert [row["kept"]["messages"] for row in rows(other.file)] == [[third, worse]]
    assert chat.messages[better].kept == {}
    shutil.rmtree(other.file.parent)  # by the user
    undo_kept(chat, third, other.file)
    assert chat.messages[third].kept == {}


def test_a_data_set_that_is_no_file_is_not_listed(chat: Conversation, tmp_path: Path) -> None:
    kept = keep_example(chat, replies(chat)[0])
    os.mkfifo(kept.file.with_name("pipe-examples.jsonl"))
    kept.file.with_name("folder-examples.jsonl").mkdir()
    assert [one.name for one in kept_datasets(tmp_path)] == ["chat"]


def test_a_picture_in_another_notation_is_a_picture_of_the_row(chat: Conversation) -> None:
    part = {"type": "image", "image": picture_url(picture_file())}
    question = chat.add("user", [part, {"type": "text", "text": "What is it?"}])
    chat.add("assistant", "A square.", parent=question.id)
    (row,) = as_rows(chat)
    assert row["images"] == [part["image"]]
    assert row["messages"][-2]["content"] == "<image>What is it?"


def test_studio_offers_kept_rows(chat: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_example(chat, replies(chat)[0], dataset="colors")
    (found,) = kept_datasets(tmp_path)
    assert (found.name, found.kind, found.rows) == ("colors", "examples", 1)
    monkeypatch.setenv("LLF_HOME", str(tmp_path))
    assert str(kept.file) in suggestions.datasets(str(tmp_path / "data"), tmp_path)


def test_replies_to_one_question_with_other_histories_are_a_pair(chat: Conversation) -> None:
    for name, end in (("base", replies(chat)[0]), ("tuned", replies(chat)[1])):
        chat.choose(end, name)
    asked = chat.ask("And tomorrow?", ["base", "tuned"])
    one, other = (chat.add("assistant", f"I am {name}.", parent=asked[name].id, target=name) for name in asked)
    assert rows(keep_pair(chat, other.id, one.id).file)[0]["messages"][2]["content"] == "In Rome."


def test_what_cannot_be_kept_is_said(chat: Conversation) -> None:
    worse, better, _, last = replies(chat)
    question = chat.messages[worse].parent
    empty = chat.add("assistant", " ", parent=question)
    refused = [
        (lambda: keep_example(chat, str(question)), "is not a reply"),
        (lambda: keep_example(chat, empty.id), "The reply is empty"),
        (lambda: keep_pair(chat, last, worse), "different questions"),
        (lambda: keep_pair(chat, worse, worse), "identical"),
        (lambda: keep_example(chat, worse, dataset="../data"), "cannot be the name of a data set"),
        (lambda: keep_example(chat, "x"), "has no message 'x'"),
    ]
    for keep, said in refused:
        with pytest.raises(ConversationError, match=said):
            keep()
    assert keep_pair(chat, worse, worse, chosen_text="In Rome, mostly.").rows == 1
    assert better
