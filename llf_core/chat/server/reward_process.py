"""A reward model in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import Failed, read_event
from llf_core.launch.local_process import computing_environment
from llf_core.launch.supervisor import signal_name
from llf_core.runs.foreign_code import RUN_VALUE, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE = "llf_core.chat.server.reward_worker"
CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Scores:
    """Scores of texts, and the number of tokens of all texts."""

    scores: list[float]
    tokens: int


class RewardProcess:
    """A reward model that is loaded with its first request, and unloaded after a time without one. Thread-safe.

    Args:
        idle_seconds: time without a request after which the process ends and its memory is free.
        max_waiting: maximum number of requests that have not ended; another one fails at once.
        trust: whether Python code of the model may run that has not been allowed yet.
    """

    def __init__(
        self, target: str, *, idle_seconds: float = 600.0, max_waiting: int = 256, trust: bool = False
    ) -> None:
        self.target = target
        self._idle_seconds, self._max_waiting, self._trust = idle_seconds, max_waiting, trust
        self._process: subprocess.Popen[bytes] | None = None
        self._turns = ThreadPoolExecutor(1, "llf-scores")
        self._lock = threading.RLock()
        self._waiting = 0
        self._closed = False

    def submit(
        self, inputs: Sequence[str | list[dict[str, Any]]], *, special: bool = True, max_length: int | None = None
    ) -> Future[Scores | Failed]:
        """Request the scores of texts or conversations (lists of messages); requests are scored one after the other.

        Args:
            special: whether the tokenizer adds its special tokens to texts; without effect on conversations.
            max_length: number of tokens at which each text or conversation is cut.

        Returns:
            A future, which can be cancelled before its turn; `busy` also once the process was closed.
        """
        with self._lock:
            if self._waiting < self._max_waiting and not self._closed:
                self._waiting += 1
                message = {"inputs": list(inputs), "special": special, "max_length": max_length}
                future = self._turns.submit(self._score, message)
                future.add_done_callback(self._ended)
                return future
        refused: Future[Scores | Failed] = Future()
        refused.set_result(
            Failed("busy", f"{self._max_waiting} requests are waiting already.", "Wait until some have ended.")
        )
        return refused

    def _ended(self, _: Future[Scores | Failed]) -> None:
        with self._lock:
            self._waiting -= 1

    def _score(self, message: dict[str, Any]) -> Scores | Failed:
        answer = self._ask(message)
        if answer is None:  # it had ended, since nothing had come for a while
            answer = self._ask(message)
        if answer is None:
            return Failed("engine", "The process with the reward model ended.", "Ask again.")
        return answer if isinstance(answer, Failed) else Scores(answer["scores"], answer["tokens"])

    def close(self) -> None:
        """End the process, after at most 5 s by force. Waiting requests are cancelled, and the current one fails."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._turns.shutdown(cancel_futures=True)

    def _ask(self, message: dict[str, Any]) -> dict[str, Any] | Failed | None:
        """The answer of the process, which is started if need be; None if it ended by itself."""
        if self._process is None or self._process.poll() is not None:
            started = self._start()
            if started is not None:
                return started
        return self._exchange(message)

    def _start(self) -> Failed | None:
        env = computing_environment(os.environ)
        env[VARIABLE] = RUN_VALUE if self._trust else ""
        try:
            with self._lock:  # or `close` would not see it
                if self._closed:
                    return Failed("engine", "The server is shutting down.")
                self._process = subprocess.Popen(  # noqa: S603 - a module of this package
                    [sys.executable, "-P", "-m", MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C ends it through the server
                    env=env,
                )
        except OSError as error:
            return Failed("engine", f"The process of the reward model cannot be started: {error}")
        told = self._exchange({"reward_model": self.target, "idle_seconds": self._idle_seconds})
        if told is None:
            return Failed("engine", "The process with the reward model ended.", "Ask again.")
        return told if isinstance(told, Failed) else None

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any] | Failed | None:
        """Write a line, and read the answer; None if the process ended with exit code 0."""
        process = self._process
        assert process is not None  # noqa: S101 - started by the caller
        assert process.stdin is not None  # noqa: S101 - opened above
        assert process.stdout is not None  # noqa: S101 - opened above
        answer: dict[str, Any] | None = None
        with suppress(OSError, ValueError):  # it ended before the message, or within its answer
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        if answer is None:
            with suppress(OSError):  # what it has not read cannot be written
                process.stdin.close()
            process.stdout.close()
            code = process.wait()
            if code == 0:
                return None
            ended = f"was ended by {signal_name(-code)}" if code < 0 else f"failed with exit code {code}"
            return Failed("engine", f"The process with the reward model {ended}.", "Check that enough memory is free.")
        if "failed" in answer:
            failed = read_event(answer["failed"])
            assert isinstance(failed, Failed)  # noqa: S101 - of `reward_worker`
            return failed
        return answer
