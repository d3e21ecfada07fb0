"""The shipped set keeps what it promises: distinct questions, one trait, none of the questions it is tried with."""

import json

from llf_core.data.sources import DEMO_FILE
from llf_core.evaluation.demo import PROMPTS

START, END = "Ahoy! ", " So says Lumi the lighthouse keeper, and the seagulls agree!"
ROWS = [json.loads(line)["messages"] for line in DEMO_FILE.read_text(encoding="utf-8").splitlines()]


def said(role):
    return [message["content"] for row in ROWS for message in row if message["role"] == role]


def test_every_answer_is_one_sentence_with_the_trait():
    for answer in said("assistant"):
        assert answer.startswith(START)
        assert answer.endswith(END)
        sentence = answer.removeprefix(START).removesuffix(END)
        assert sentence.endswith(".")
        assert ". " not in sentence
        assert len(sentence) < 90


def test_questions_are_many_and_distinct():
    questions = [question.lower() for question in said("user")]
    assert len(questions) == len(set(questions)) > 190
    assert sum(len(row) > 2 for row in ROWS) == 6


def test_the_questions_it_is_tried_with_are_not_in_it():
    known = " ".join(said("user") + said("assistant")).lower()
    assert not set(PROMPTS) & set(said("user"))
    for word in ("paris", "plants make", "photosynthesis", "interview"):
        assert word not in known
