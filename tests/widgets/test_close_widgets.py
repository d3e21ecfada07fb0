"""What closes a view, and what is left of one that could not be made."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

import llf_widgets as llf


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("Monitor", "nope", "No run nope"),
        ("Studio", 5, "A config cannot be a int"),
        ("Examples", "nope", "No run nope"),
    ],
)
def test_a_view_that_cannot_be_made_prints_no_second_error(
    monkeypatch: pytest.MonkeyPatch, name: str, argument: Any, said: str
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    view = getattr(llf, name)
    told = ""
    try:
        view(argument)
    except (OSError, ValueError) as error:
        told = str(error)
    gc.collect()
    assert told.startswith(said)
    assert seen == []
