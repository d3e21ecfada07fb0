"""What a monitor shows of a run at a moment, and the thread that asks for the next one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.runs.listing import place_text
from llf_core.runs.pace import remaining
from llf_core.runs.states import LIVE_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.runs.folder import FinishedPredictions

STEERABLE = ("starting", "running", "stopping")

PREDICTIONS = "predictions"
"""The phase in which a trained run answers its evaluation data, and its `progress`."""


@dataclass(frozen=True)
class Number:
    """A key number: formatted `value`, its `unit`, and `note`, a comparison such as the best or the first value."""

    label: str
    value: str
    unit: str = ""
    note: str = ""

    def json(self) -> dict[str, str]:
        """The number for the front end."""
        return {"label": self.label, "value": self.value, "unit": self.unit, "note": self.note}


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment as described by its folder. Times are Unix seconds, durations seconds, None if unknown.

    Attributes:
        state: effective state, `broken` if its status cannot be read.
        name: display name; empty for none.
        description: model, method and data.
        reason: why the run is in this state, as the trainer wrote it; None if it gave none.
        stale: since when there is no news of a live run of another host, and why; empty for others.
        finding: what its curves say against the result of a finished run; None if nothing.
        total: planned steps; 0 if unknown.
        attempt: number of the current attempt, from 1.
        heartbeat: last sign of life of its trainer.
        elapsed: training time, without pauses between attempts.
        per_step: time per step of the current attempt.
        step_seconds: duration of the last step.
        epochs: planned epochs; None also if the number of steps is set.
        resumed_from: step from which the attempt continues; None for one that began at the start.
        queue: what a queued run waits for, as a sentence; empty for others.
        receipt: comparison of the first steps of a resumed attempt with the log.
        progress: the current `progress` event before the first step or after the last one.
        phase: the current `phase` event before the first step or after the last one.
        phase_seconds: duration of the current phase; 0 without one.
        checkpoints: steps of the complete checkpoints, ascending.
        checkpoint_time: when the last one was saved.
        output: folder of the result, for display; None before the run has finished.
        finished_predictions: number in the file; None while there are none, or some are missing.
        peak_learning_rate: current peak of the learning rate schedule.
        events: warnings, findings, answers to requests and errors, in order.
        generates: whether the result generates text; a reward model does not.
    """

    id: str
    state: str
    name: str = ""
    description: str = ""
    reason: str | None = None
    stale: str = ""
    finding: str | None = None
    step: int = 0
    total: int = 0
    attempt: int = 1
    created: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    elapsed: float = 0.0
    per_step: float | None = None
    step_seconds: float | None = None
    epoch: float | None = None
    epochs: float | None = None
    resumed_from: int | None = None
    receipt: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    phase: dict[str, Any] | None = None
    phase_seconds: float = 0.0
    queue: str = ""
    checkpoints: tuple[int, ...] = ()
    checkpoint_time: float | None = None
    output: str | None = None
    predictions: str = ""
    finished_predictions: FinishedPredictions | None = None
    peak_learning_rate: float | None = None
    held_out: bool = False
    watched: bool = False
    generates: bool = True
    numbers: tuple[Number, ...] = ()
    events: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def live(self) -> bool:
        """Whether the run may still change."""
        return self.state in LIVE_STATES

    @property
    def last_step(self) -> int:
        """Right end of the step axis: the planned steps, of an ended run its last step; 0 if unknown."""
        return self.total if self.live or not self.step else self.step

    @property
    def remaining(self) -> float | None:
        """Estimated seconds to the last planned step, see `llf_core.runs.pace.remaining`."""
        return remaining(self.state, self.step, self.total, self.per_step)


METHODS = {"lora": "LoRA", "full": "full", "freeze": "freeze", "oft": "OFT"}


def describe_run(
    config: dict[str, Any], data_event: dict[str, Any] | None, mirror: Mapping[str, object] | None = None
) -> str:
    """Describe a run: `smollm2-135m-instruct, DPO, LoRA rank 8, pairs (949 examples), 2 processes (DDP)`.

    Unknown parts and `sft`, the default stage, are omitted; empty if nothing is known.
    """
    parts = []
    model = config.get("model_name_or_path")
    if model:
        parts.append(_short(model))
    stage = str(config.get("stage") or "sft")
    if stage != "sft":
        loss = config.get("pref_loss")
        parts.append(stage.upper() if loss in (None, "sigmoid") or stage != "dpo" else f"{stage.upper()} ({loss})")
    method = str(config.get("finetuning_type", "lora"))
    if config:
        text = METHODS.get(method, method)
        if method == "lora":
            rank = config.get("lora_rank")
            text += "" if rank is None else f" rank {rank}"
            if config.get("quantization_bit"):
                text = f"Q{text}, {config['quantization_bit']} bits"
        parts.append(text)
    data = config.get("dataset")
    if data:
        names = data if isinstance(data, list) else str(data).split(",")
        text = ", ".join(_short(name) for name in names)
        if data_event and isinstance(data_event.get("examples"), int):
            text += f" ({with_unit(data_event['examples'], 'example')})"
        parts.append(text)
    parts.append(place_text(config, mirror))
    return ", ".join(filter(None, parts))


def _short(name: object) -> str:
    """The last two parts of a path; a hub id or name unchanged."""
    text = str(name).strip()
    parts = [part for part in text.split("/") if part]
    return text if len(parts) <= 2 else "/".join(parts[-2:])  # noqa: PLR2004 - a hub id has two


MIN_INTERVAL, MAX_INTERVAL = 0.33, 5.0  # seconds between two looks
MAX_CPU_SHARE = 0.015  # of one core, at most: a poll that cost 30 ms is followed by 2 s of pause


class Poller:
    """Calls `poll` in a background thread until it returns None.

    A notebook would print a thread's output and tracebacks into the running cell, so an error is passed to `on_error`
    as a sentence, and polling continues. The pause after an expensive poll grows, up to `MAX_INTERVAL`, so that polling
    uses no more than `MAX_CPU_SHARE` of a core.

    Args:
        poll: does the work of one poll; returns the minimum seconds until the next one, or None to end.
        on_error: receives an error sentence, or an empty text after recovery.
    """

    def __init__(self, poll: Callable[[], float | None], on_error: Callable[[str], None], name: str) -> None:
        self._poll = poll
        self._on_error = on_error
        self._name = name
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._active = False
        self._running = False
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread polls, or will poll again."""
        return self._running

    def start(self) -> None:
        """Start the thread; if it is running, poll at once."""
        with self._lock:
            self._active = True
            self._wake.set()
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread after the current poll, without waiting for it."""
        with self._lock:
            self._active = False
            self._wake.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the thread to end, unless called from it; return whether it has."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return not self._running

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._active:
                    self._running = False
                    return
                self._wake.clear()
            before = time.thread_time()
            pause = self._poll_once()
            if pause is None:
                with self._lock:
                    self._active = self._active and self._wake.is_set()  # a start that came meanwhile counts
                continue
            cost = time.thread_time() - before
            self._wake.wait(min(MAX_INTERVAL, max(pause, MIN_INTERVAL, cost / MAX_CPU_SHARE)))

    def _poll_once(self) -> float | None:
        """One poll; an error becomes a sentence and a pause of one second."""
        try:
            pause = self._poll()
            self._on_error("")
        except Exception as error:  # noqa: BLE001 - whatever it was, the view says it and goes on
            return self._report(error)
        return pause

    def _report(self, error: Exception) -> float | None:
        try:
            self._on_error(
                f"This view could not read the run ({type(error).__name__}: {error}). "
                "The run is not affected. Retrying."
            )
        except Exception:  # noqa: BLE001 - the widget is gone, so nobody is left to be told
            return None
        return 1.0
