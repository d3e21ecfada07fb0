"""Texts of strangers: nothing in them that a terminal or a page obeys, and no word without end."""

import json
import time

import pytest

from llf_core.untrusted import brief, visible, visible_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x00b\x9bc\x7f", r"a\x00b\x9bc\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("sta\u200bge\ufeff", r"sta\u200bge\ufeff"),
        ("half \ud800", r"half \ud800"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("line\u2028end", r"line\u2028end"),
        ("back\rto", r"back\x0dto"),
    ],
)
def test_what_a_terminal_obeys_and_what_nobody_sees_stands_as_an_escape(text, shown):
    assert visible(text) == shown
    assert brief(text) == shown


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "naïve 日本語 שלום 👩\u200d💻", "no\xa0break …"])
def test_text_of_any_language_stays_as_it_is(text):
    assert visible(text) == text


def test_json_means_the_same_and_shows_no_control_character():
    value = {"a\x9b": "\u202e \U000e0041 half \ud800 \x1b é"}
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert "é" in text
    assert visible(text) == text
    text.encode()


def test_a_message_is_cut_in_its_middle_and_keeps_both_ends():
    path = "/" + "a" * 5000 + "/z.yaml"
    text = brief(f"The config {path} cannot be read. Expected a file.")
    assert text.startswith("The config /aaa")
    assert text.endswith("a/z.yaml cannot be read. Expected a file.")
    assert len(text) < 500
    assert len(brief("word " * 100_000)) < 5000
    assert brief("word " * 700) == "word " * 700


def test_a_message_of_megabytes_is_shortened_at_once():
    began = time.process_time()
    assert len(brief(("a" * 400 + " ") * 1_000)) == 3201
    assert time.process_time() - began < 1
