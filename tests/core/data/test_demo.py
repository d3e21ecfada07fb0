"""The shipped sets keep what they promise: distinct questions, one trait, none of the questions it is tried with."""

import json

from llf_core.data.sources import DEMO_FILE, DEMO_FILES, DEMO_PAIRS
from llf_core.evaluation.demo_report import PROMPTS

START, END = "Ahoy! ", " So says Lumi the lighthouse keeper, and the seagulls agree!"
ROWS = [json.loads(line)["messages"] for line in DEMO_FILE.read_text(encoding="utf-8").splitlines()]
PAIRS = [json.loads(line) for line in DEMO_FILES[DEMO_PAIRS].read_text(encoding="utf-8").splitlines()]


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


def test_the_better_answer_of_a_pair_has_the_trait_and_the_worse_one_has_not():
    for pair in PAIRS:
        assert pair["chosen"].startswith(START)
        assert pair["chosen"].endswith(END)
        assert ". " not in pair["chosen"].removeprefix(START).removesuffix(END)
        assert "Ahoy" not in pair["rejected"]
        assert "Lumi" not in pair["rejected"]


def test_pairs_ask_what_nothing_else_asks():
    questions = [pair["prompt"].lower() for pair in PAIRS]
    assert len(questions) == len(set(questions)) >= 40
    others = {question.lower() for question in (*said("user"), *PROMPTS)}
    assert not set(questions) & others
    assert "paris" not in " ".join(pair["chosen"] + pair["rejected"] for pair in PAIRS).lower()
