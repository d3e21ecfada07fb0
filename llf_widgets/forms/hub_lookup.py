"""Asks hubs about names, and places whether runs can start there, in a thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from llf_core.config.name_checks import query_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from llf_core.config.name_checks import Answer

Asked = TypeVar("Asked")
DEBOUNCE_SECONDS = 0.3
"""Seconds without new questions before the hub is queried."""
RETRY_SECONDS = 60.0
"""Seconds after which an unreachable hub is queried again."""


class HubLookup(Generic[Asked]):
    """Answers from a hub about names, kept while the form is open.

    Args:
        on_answer: called in the background thread when there are new answers.
        query: answers questions; None for the hubs.
    """

    def __init__(
        self,
        on_answer: Callable[[], None],
        query: Callable[[Collection[Asked]], Mapping[Asked, Answer]] | None = None,
    ) -> None:
        self._query = query
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._requested: tuple[Asked, ...] = ()
        self._answers: dict[Asked, tuple[Answer, float]] = {}
        self._thread: threading.Thread | None = None

    @property
    def answers(self) -> Mapping[Asked, Answer]:
        """Copy of the answers so far."""
        with self._lock:
            return {question: answer for question, (answer, _) in self._answers.items()}

    def request(self, questions: Iterable[Asked]) -> None:
        """Replace the current questions, of which unanswered ones are sent `DEBOUNCE_SECONDS` after the last change."""
        with self._lock:
            self._requested = tuple(questions)
            if self._unanswered() and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llf-form-hub", daemon=True)
                self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all questions are answered, or `timeout` seconds have passed, for tests and scripts."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _unanswered(self) -> tuple[Asked, ...]:
        """Questions without a valid answer. The caller holds the lock."""
        now = time.monotonic()
        known = {
            question
            for question, (answer, at) in self._answers.items()
            if answer.there is not None or now - at < RETRY_SECONDS
        }
        return tuple(question for question in self._requested if question not in known)

    def _run(self) -> None:
        try:
            self._ask()
        except BaseException:  # of `on_answer`: the next questions need a thread again
            with self._lock:
                self._thread = None
            raise

    def _ask(self) -> None:
        before: tuple[Asked, ...] = ()
        while True:
            with self._lock:
                questions = self._unanswered()
                if not questions:
                    self._thread = None
                    return
            if questions != before:  # somebody may be typing
                before = questions
                time.sleep(DEBOUNCE_SECONDS)
                continue
            query = cast("Callable[[Collection[Asked]], Mapping[Asked, Answer]]", self._query or query_hub)
            found = query(questions)
            with self._lock:
                self._answers |= {question: (answer, time.monotonic()) for question, answer in found.items()}
            self._on_answer()
