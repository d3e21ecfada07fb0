"""Queries a Hugging Face hub for the existence of repositories, within a time limit."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from llf_core.config.name_checks.hub_question import Answer
from llf_core.config.name_checks.mirrors import MirrorError, mirror_of
from llf_core.config.name_checks.repository import fetch_repository_info
from llf_core.config.shown_url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.config.name_checks.hub_question import Question
    from llf_core.config.name_checks.mirrors import Mirror

SECONDS = 3.0
HUB = "https://huggingface.co"
ABSENT = {401, 404}
TRUE = {"1", "ON", "YES", "TRUE"}


def query_hub(questions: Iterable[Question], seconds: float = SECONDS) -> dict[Question, Answer]:
    """Query the hub about all repositories at once, within a time limit; nothing is downloaded.

    Requests are made by Hugging Face's client (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, proxies), or as `mirrors`
    says. Failures of the network are answers, not errors. Threads that wait for a late answer go on until it comes or
    their connection ends.
    """
    unique = list(dict.fromkeys(questions))
    why = _unavailable()
    if why:
        return dict.fromkeys(unique, Answer(None, why))
    answers: dict[Question, Answer] = {}
    until = time.monotonic() + seconds
    # Daemon threads, so that a hub that never answers does not delay the end of the process.
    threads = [
        threading.Thread(target=_query, args=(one, seconds, until, answers), name="llf-hub", daemon=True)
        for one in unique
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return {
        one: answers.get(one) or Answer(None, f"{_address(one)} did not answer within {seconds:g} s") for one in unique
    }


def endpoint() -> str:
    """Address of the hub for messages, without user name, password and query."""
    return without_secrets((os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"))


def offline() -> bool:
    """Whether offline mode is set, in the environment or in the imported client."""
    client = sys.modules.get("huggingface_hub.constants")
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in TRUE or bool(getattr(client, "HF_HUB_OFFLINE", False))


def _unavailable() -> str:
    """Reason why the hub cannot be queried; empty if it can."""
    if offline():
        return "HF_HUB_OFFLINE is set"
    if importlib.util.find_spec("huggingface_hub") is None:
        return "huggingface_hub is not installed"
    return ""


def _query(question: Question, seconds: float, until: float, answers: dict[Question, Answer]) -> None:
    try:
        answer = _answer(question, seconds)
    except Exception as error:  # noqa: BLE001 - the network and its client fail in many ways; none ends the check
        answer = Answer(None, f"{_address(question)} did not answer ({type(error).__name__})")
    if answer.there is not None or time.monotonic() < until:  # else its client met the time limit too
        answers[question] = answer


def _address(question: Question) -> str:
    mirror = mirror_of(question.hub)
    return endpoint() if mirror is None else mirror.shown


def _answer(question: Question, seconds: float) -> Answer:
    mirror = mirror_of(question.hub)
    return _of_hugging_face(question, seconds) if mirror is None else _of_mirror(mirror, question, seconds)


def _of_mirror(mirror: Mirror, question: Question, seconds: float) -> Answer:
    try:
        mirror.files(question.name, mirror.main, seconds)
    except MirrorError as error:
        if error.status in {*ABSENT, 403}:
            return Answer(there=False, why=mirror.shown)
        return Answer(None, f"{mirror.shown} answered {error.status}")
    except Exception as error:  # noqa: BLE001 - the network and its client fail in many ways; none ends the check
        return Answer(None, f"{mirror.shown} did not answer like {mirror.label} ({type(error).__name__})")
    return Answer(there=True)


def _of_hugging_face(question: Question, seconds: float) -> Answer:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    try:
        fetch_repository_info(question.kind, question.name, seconds=seconds)
    except GatedRepoError:  # it is there
        return Answer(there=True)
    except HFValidationError:
        return Answer(there=False, why=endpoint())
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in ABSENT:
            return Answer(there=False, why=endpoint())
        return Answer(None, f"{endpoint()} answered {status}")
    return Answer(there=True)
