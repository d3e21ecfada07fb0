"""What people read is plain English: no string has a phrase that was found to stop a reader, helps are sentences."""

import re

import pytest

from llf_core.config import fields
from llf_core.config.registry import all_declared
from tests.strings import texts

STOPS = (
    r"(is|was|are|were) asked", r"heeds?", r"worn", r"last word", r"that which", r"nobody to", r"dearest",
    r"did not suffice", r"not divided", r"read them so", r"otherwise from there", r"mend", r"whole number", r"knows no",
    r"gone without", r"what is otherwise", r"held on to", r"find likely",
)  # fmt: skip
FOUND = re.compile(rf"\b({'|'.join(STOPS)})\b", re.IGNORECASE)


def test_no_string_has_a_phrase_that_stops_a_reader():
    found = [str(text) for text in texts() if FOUND.search(text.text)]
    assert found == []
    assert len(texts()) > 2500  # all of them were looked at


@pytest.mark.parametrize("spec", fields(), ids=lambda spec: spec.key)
def test_a_help_is_sentences_and_a_label_is_short(spec):
    assert re.match(r"[A-Z`0-9ε-]", spec.help), spec.help
    assert spec.help.rstrip(")").endswith("."), spec.help
    assert len(spec.help) <= 200
    assert spec.label
    assert len(spec.label.split()) <= 5
    assert not spec.label.endswith(".")


def test_a_declaration_has_a_label():
    assert all(one.label for one in all_declared().values())
