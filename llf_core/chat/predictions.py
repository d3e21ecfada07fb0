"""Batch prediction: the responses of a model to many prompts, kept as they come, and continued after a stop."""

from __future__ import annotations

import queue
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import CollectedReply
from llf_core.redaction import redact_nested
from llf_core.runs.files import json_bytes, locked, replace_file
from llf_core.runs.folder import RESULT, STATE
from llf_core.runs.jsonl import append, encode, records
from llf_core.untrusted import json_value, leads_to_file, read_object
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llf_core.chat.request import ChatRequest, Event
    from llf_core.chat.service import ChatService, Ticket

PARTIAL, LOCK = "generated_predictions.partial.jsonl", ".predict.lock"
MAX_OPEN = 64
"""Maximum number of requests that the engine has at a time."""
POLL_SECONDS = 0.2
OF_ONE_RECORD = frozenset({"invalid", "too_long"})
"""Failures that concern a single record."""
CHANGED = {
    "model": "another model",
    "generation": "other generation settings",
    "data": "other data",
}


class PredictionError(UserError):
    """The predictions cannot be made or continued."""

    exit_code = BAD_CONFIG


class PredictionFolder:
    """A folder with predictions: those made so far, then the result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def result(self) -> Path:
        """The file of the result, which exists once all predictions are made."""
        return self.folder / RESULT

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while predictions are made.

        Raises:
            PredictionError: another process makes predictions in it.
        """
        with ExitStack() as lock:
            try:
                lock.enter_context(locked(self.folder / LOCK, seconds=0))
            except TimeoutError:
                raise PredictionError(f"Another process makes predictions in {self.folder}. Wait for it.") from None
            yield

    def begin(self, settings: Mapping[str, Any], total: int) -> tuple[set[int], bool]:
        """Begin or continue predictions; the numbers of the records that have one, and whether the result is written.

        Args:
            settings: what the predictions depend on, by the keys of `CHANGED`; written to the folder.

        Raises:
            PredictionError: the folder has predictions with other or unknown settings, or a result of another program.
        """
        state = read_object(self.folder / STATE)
        begun = state.get("settings")
        now = json_value(json_bytes(settings))  # as the file has them
        if state and begun != now:
            begun = begun if isinstance(begun, dict) else {}
            what = " and ".join(name for key, name in CHANGED.items() if begun.get(key) != now.get(key))
            raise PredictionError(
                f"The predictions in {self.folder} were begun with {what or 'another version'}.",
                "Name another folder with --output, or delete this one.",
            )
        if not state and leads_to_file(self.folder / PARTIAL):
            raise PredictionError(
                f"{self.folder} has predictions, and {STATE}, which names their model and data, is missing or damaged.",
                f"Name another folder with --output, or delete {PARTIAL} to begin anew.",
            )
        if not state and leads_to_file(self.result):
            raise PredictionError(
                f"{self.result} exists already, and LLF did not write it.", "Name another folder with --output."
            )
        if state.get("finished") is True and leads_to_file(self.result):
            return set(range(total)), True
        replace_file(self.folder / STATE, json_bytes({"settings": now, "total": total, "finished": False}))
        return {one["index"] for one in self._partial(total)}, False

    def add(self, index: int, record: Mapping[str, Any]) -> None:
        """Keep a prediction at once: `prompt`, `predict`, `label`, and `error` if it failed."""
        append(self.folder / PARTIAL, {"index": index, **record}, named=False)

    def finish(self, total: int) -> None:
        """Write the result in the order of the data, and remove the file of the kept predictions."""
        found = {one.pop("index"): one for one in self._partial(total)}
        replace_file(self.result, b"".join(encode(redact_nested(found[at], named=False)) for at in sorted(found)))
        state = read_object(self.folder / STATE)
        replace_file(self.folder / STATE, json_bytes(state | {"finished": True}))
        (self.folder / PARTIAL).unlink(missing_ok=True)

    def _partial(self, total: int) -> Iterator[dict[str, Any]]:
        for one in records(self.folder / PARTIAL):
            index = one.get("index")
            if isinstance(index, int) and 0 <= index < total and isinstance(one.get("predict"), str):
                yield one


def predict_all(
    service: ChatService,
    name: str,
    requests: Iterable[tuple[int, ChatRequest]],
    keep: Callable[[int, CollectedReply], None],
    on_progress: Callable[[int, int], None],
) -> None:
    """Request many replies of a model, several at a time, in the given order.

    Args:
        requests: the requests with their numbers, each number once; neighbours of similar length batch best.
        keep: called with each reply, in the order in which they end; a reply may have failed for its prompt alone.
        on_progress: called with the numbers of ended replies and of their tokens so far: after each reply, and every
            0.2 s in which no event comes, so that an interrupt is noticed.

    Raises:
        PredictionError: the model is unknown, failed, or ran out of memory. The open replies are cancelled then.
    """
    waiting = iter(requests)
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    open_replies: dict[int, tuple[Ticket, CollectedReply]] = {}
    done = tokens = 0

    def submit_next() -> None:
        for number, request in waiting:
            reply = CollectedReply()
            ticket = service.submit(name, request, lambda event, number=number: events.put((number, event)))  # type: ignore[misc]
            open_replies[number] = (ticket, reply)
            return

    try:
        for _ in range(MAX_OPEN):
            submit_next()
        while open_replies:
            try:
                number, event = events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                on_progress(done, tokens)
                continue
            reply = open_replies[number][1]
            if not reply.take(event):
                continue
            del open_replies[number]
            if (failed := reply.failed) is not None and failed.kind not in OF_ONE_RECORD:
                raise PredictionError(failed.message, failed.what_to_do)
            keep(number, reply)
            done += 1
            tokens += reply.finished.completion_tokens if reply.finished is not None else 0
            on_progress(done, tokens)
            submit_next()
    finally:
        for ticket, _ in open_replies.values():
            ticket.cancel()


def seeded(request: ChatRequest, seed: int, index: int) -> ChatRequest:
    """A request whose seed depends on its record, so that a continued prediction has the same replies."""
    if not request.sampling.temperature:
        return request
    return replace(request, sampling=replace(request.sampling, seed=seed + index))


def by_length(lengths: Sequence[int], left: set[int]) -> list[int]:
    """Numbers of the records that are left, the longest first, so that a batch has prompts of similar lengths."""
    return sorted(left, key=lambda index: (-lengths[index], index))
