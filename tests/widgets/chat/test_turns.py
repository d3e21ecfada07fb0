"""A conversation in turns: branches of questions and replies of several models."""

from __future__ import annotations

import math
import threading

import pytest

from llf_core.chat.conversation import new_conversation
from llf_core.chat.service import ChatService
from llf_widgets.chat.replies import INTERRUPTED, Writing, footer
from llf_widgets.chat.reply_writer import ReplyWriter
from llf_widgets.chat.settings import DEFAULTS
from llf_widgets.chat.turns import shortened, sibling, turn_json, turns_of

MODELS = ["a", "b"]


@pytest.fixture
def conversation():
    return new_conversation()


def ask(conversation, text):
    for model, question in conversation.ask(text, MODELS).items():
        reply(conversation, model, question, f"{text} {model}")


def reply(conversation, model, question, text):
    made = conversation.add("assistant", text, parent=question.id, target=model, finish_reason="stop")
    conversation.choose(made.id, model)
    return made


def texts(conversation, models=MODELS):
    shown = [turn_json(conversation, turn, {}, {}) for turn in turns_of(conversation, models)]
    return [(turn["text"], *(one["text"] for one in turn["replies"])) for turn in shown]


def test_one_question_stands_above_the_replies_of_all_models(conversation):
    ask(conversation, "one")
    ask(conversation, "two")  # two messages by now, since the histories differ
    assert texts(conversation) == [("one", "one a", "one b"), ("two", "two a", "two b")]
    assert texts(conversation, ["b"]) == [("one", "one b"), ("two", "two b")]
    assert texts(conversation, ["c"]) == [("one",)]


def test_a_reply_that_was_made_again_begins_a_branch_of_its_model_only(conversation):
    ask(conversation, "one")
    ask(conversation, "two")
    first = turns_of(conversation, MODELS)[0]
    reply(conversation, "a", first.questions["a"], "one a again")
    assert texts(conversation) == [("one", "one a again", "one b"), ("two", "two b")]
    ask(conversation, "three")
    assert texts(conversation)[2] == ("three", "three a", "three b")
    turn = turns_of(conversation, MODELS)[0]
    shown = turn_json(conversation, turn, {}, {})["replies"]
    assert [one["version"] for one in shown] == [[2, 2], [1, 1]]
    conversation.choose(sibling(conversation, turn.replies["a"][0], -1), "a")
    assert texts(conversation) == [("one", "one a", "one b"), ("two", "two a", "two b"), ("three", "three b")]
    assert sibling(conversation, turn.replies["a"][0], 5) == turn.replies["a"][0].id


def test_usage_that_anybody_wrote_is_shown_as_far_as_it_says_something(conversation):
    question = conversation.ask("one", ["a"])["a"]
    usage = {"left_out": "some", "error": {"message": "It failed.", "kind": ["odd"]}}
    conversation.add("assistant", parent=question.id, target="a", finish_reason="failed", usage=usage)
    (turn,) = turns_of(conversation, ["a"])
    (shown,) = turn_json(conversation, turn, {}, {})["replies"]
    assert (shown["note"], shown["error"]["message"]) == ("", "It failed.")
    assert [one["action"] for one in shown["error"]["fixes"]] == ["again"]


@pytest.mark.parametrize(("told", "left_out"), [(None, 1), ("some", 1), ([], 1), (-3, 1), (1, 2), (99, 2)])
def test_a_number_of_left_out_turns_that_anybody_wrote_leaves_out_no_more_than_there_are(conversation, told, left_out):
    for text in ("one", "two", "three"):
        ask(conversation, text)
    last = turns_of(conversation, MODELS)[-1]
    conversation.change(last.replies["a"][0].id, usage={"left_out": told})
    assert shortened(conversation, turns_of(conversation, MODELS)[-1], "a") == left_out


def test_a_request_with_tools_that_anybody_wrote_has_none_and_its_error_is_the_reply(conversation):
    conversation.set(tools=5)
    ended = []
    writer = ReplyWriter(ChatService(), threading.RLock(), send=list, on_end=ended.append, on_problem=pytest.fail)
    writing = Writing("reply", "a")
    writer.submit(conversation, [(writing, [])], DEFAULTS)
    assert ended == [writing]
    assert "messages" in writing.usage["error"]["message"]


def test_a_reply_under_way_has_what_was_written_so_far(conversation):
    question = conversation.ask("one", ["a"])["a"]
    made = conversation.add("assistant", parent=question.id, target="a")
    (turn,) = turns_of(conversation, ["a"])
    writing = Writing(made.id, "a", state="answering", text="so far", sequence=3)
    (shown,) = turn_json(conversation, turn, {made.id: writing}, {})["replies"]
    assert (shown["text"], shown["sequence"], shown["state"]) == ("so far", 3, "answering")
    (left,) = turn_json(conversation, turn, {}, {})["replies"]  # its kernel has ended
    assert (left["state"], left["note"]) == ("done", INTERRUPTED)


def test_numbers_of_a_reply_that_others_have_written():
    times = {"seconds": 3.0, "first_token_seconds": 1.0}
    assert footer({"completion_tokens": 5, **times}) == "5 tokens, 2.0 tokens/s, first token after 1.00 s"
    assert footer({"completion_tokens": 5, **times, "first_token_seconds": math.inf}) == "5 tokens"
    assert not footer({"completion_tokens": True, **times})
