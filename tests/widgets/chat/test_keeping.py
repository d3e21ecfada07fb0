"""Replies that are kept as training data, from the view to the rows and back."""

from __future__ import annotations

import json

import pytest

from llf_core.chat.conversation import new_conversation
from llf_core.chat.target import Target
from llf_widgets.chat.replies import kept_json
from llf_widgets.chat.turns import keep, kept_rows, turns_of, undo

BASE = Target("a", "base model", "model_name_or_path: tiny\n", model="tiny")


@pytest.fixture
def conversation():
    conversation = new_conversation()
    for model, question in conversation.ask("Why?", ["a", "b"]).items():
        conversation.add("assistant", f"{model} says", parent=question.id, target=model, finish_reason="stop")
    return conversation


def kept(conversation, model):
    (turn,) = turns_of(conversation, ["a", "b"])
    return [one["label"] for one in kept_json(turn.replies[model][0])]


def test_replies_become_rows_that_a_form_opens_and_that_are_removed_again(conversation, llf_home):
    (turn,) = turns_of(conversation, ["a", "b"])
    keep(conversation, turn, "a", "example", text="a corrected")
    keep(conversation, turn, "b", "pair", other="a")
    keep(conversation, turn, "b", "bad")
    assert kept(conversation, "a") == ["Kept as an example"]
    (shown,) = kept_json(turns_of(conversation, ["a"])[0].replies["a"][0])
    assert shown["text"] == "a corrected"
    keep(conversation, turn, "a", "example")
    (shown,) = kept_json(turns_of(conversation, ["a"])[0].replies["a"][0])
    assert not shown["text"]
    keep(conversation, turn, "a", "example", text="a corrected")
    assert kept(conversation, "b") == ["Preferred, kept as a pair", "Rated bad"]
    rows = {one["text"]: one["code"] for one in kept_rows(None, BASE)}
    assert list(rows) == [
        "1 example in chat-examples.jsonl",
        "1 pair in chat-pairs.jsonl",
        "1 rating in chat-ratings.jsonl",
    ]
    opened = eval(rows["1 pair in chat-pairs.jsonl"].removeprefix("llf.Studio"))
    assert (opened["stage"], opened["model_name_or_path"]) == ("dpo", "tiny")
    (pair,) = map(json.loads, open(opened["dataset"]))  # noqa: PTH123, SIM115
    assert (pair["chosen"]["content"], pair["rejected"]["content"]) == ("b says", "a says")
    example = json.loads((llf_home / "kept" / "chat-examples.jsonl").read_text())
    assert example["messages"][-1]["content"] == "a corrected"

    for model, kind in (("a", "examples"), ("b", "pairs"), ("b", "ratings")):
        undo(conversation, turn, model, kind)
    assert kept(conversation, "a") == kept(conversation, "b") == kept_rows(None, BASE) == []


def test_what_cannot_be_kept_is_an_error(conversation):
    (turn,) = turns_of(conversation, ["a", "b"])
    for model, what, expected in (("c", "example", "has not answered"), ("a", "x", "Expected example, pair")):
        with pytest.raises(ValueError, match=expected):
            keep(conversation, turn, model, what)
    with pytest.raises(ValueError, match="identical"):
        keep(conversation, turn, "a", "pair")
