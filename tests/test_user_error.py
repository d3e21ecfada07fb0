"""One base for all errors whose text is for a person, told once by the trainer and by the command line."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path

import pytest

from llf_core.config import ConfigError, Problem
from llf_core.data.errors import DataError
from llf_core.models.errors import ModelError
from llf_core.rewards import RewardError
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.stages.base.context import StopTraining
from llf_core.stages.base.loop import DoesNotFitError
from llf_core.training.failures import explain_failure
from llf_core.untrusted import UnreadableError
from llf_core.user_error import BAD_CONFIG, FAILED, UserError

ROOT = Path(__file__).parent.parent
PROBLEMS = tuple(Problem("invalid", key, 0, f"{key} is 0.") for key in ("one", "two"))


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (ConfigError(PROBLEMS), "one is 0.; two is 0.", BAD_CONFIG),
        (DataError("No rows."), "No rows.", BAD_CONFIG),
        (ModelError("No model."), "No model.", BAD_CONFIG),
        (UntrustedCodeError("Not allowed."), "Not allowed.", BAD_CONFIG),
        (UnreadableError(1, "config.yaml", "is a link."), "config.yaml is a link.", FAILED),
        (RewardError("f", "f returned nan."), "f returned nan.", FAILED),
        (DoesNotFitError("Too large.", "Cut it."), "Too large. Cut it.", FAILED),
        (StopTraining("No answer.", "Resume."), "No answer. Resume.", FAILED),
        (StopTraining("No answer."), "No answer.", FAILED),
    ],
)
def test_the_trainer_tells_each_in_its_own_words(error: UserError, reason: str, code: int) -> None:
    failure = explain_failure(error)
    assert (failure.reason, failure.exit_code, failure.expected) == (reason, code, True)
    assert str(error).replace("\n", "; ") == reason


def test_a_remedy_that_is_known_later_is_told_too() -> None:
    error = RewardError("f", "f returned nan.")
    error.what_to_do = "Mend it."
    assert str(error) == explain_failure(error).reason == "f returned nan. Mend it."


def test_an_error_reaches_another_process_whole() -> None:
    error = copy.copy(pickle.loads(pickle.dumps(DoesNotFitError("Too large.", "Cut it."))))
    assert (error.message, error.what_to_do) == ("Too large.", "Cut it.")


def test_no_other_class_takes_message_and_remedy() -> None:
    paths = [*(ROOT / "llf_core").rglob("*.py"), *(ROOT / "llf_widgets").rglob("*.py")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name != "UserError":
                made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
                taken = {one.arg for method in made for one in ast.walk(method) if isinstance(one, ast.arg)}
                assert not {"message", "what_to_do"} <= taken, f"{node.name} of {path}: derive it from UserError"
