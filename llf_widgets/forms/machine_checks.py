"""The checks of this machine for a form: cached, and repeated while other runs are active."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.launch.queue import MachineLoad
from llf_widgets.forms.preflight import preflight_checks
from llf_widgets.monitor.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.config import RunConfig
    from llf_core.launch.queue import RunAhead
    from llf_widgets.forms.messages import Message

_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class MachineState:
    """Result of the checks: messages for the form, and running and queued runs of this machine."""

    messages: Sequence[Message] = ()
    ahead: Sequence[RunAhead] = ()

    @property
    def errors(self) -> list[str]:
        """Texts of the messages that disable Start."""
        return [message.text for message in self.messages if message.level == "error"]


class MachineChecks:
    """Checks environment, disk and other runs, at most every five seconds unless `fresh` is requested.

    While other runs are active, a thread checks too, since the form shows their step and remaining time.

    Args:
        on_change: called in the thread after something has changed.
        on_run_end: called in the thread after a run has ended, whose measurements correct the forecast.
    """

    def __init__(
        self,
        config: Callable[[], RunConfig | None],
        on_change: Callable[[], None],
        on_run_end: Callable[[], None],
    ) -> None:
        self._config, self._on_change, self._on_run_end = config, on_change, on_run_end
        self._load = MachineLoad()
        self._state = MachineState()
        self._checked = -math.inf
        self._followed: set[str] = set()  # runs whose end was not reported yet
        self._poller = Poller(self._poll, lambda _: None, "llf-studio")

    def state(self, *, fresh: bool = False) -> MachineState:
        """What the last checks found."""
        if fresh or time.monotonic() - self._checked > _CHECK_SECONDS:
            self._check()
            if self._state.ahead:
                self._poller.start()
        return self._state

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._poller.stop()

    def _check(self) -> MachineState:
        ahead = self._load.ahead()
        self._state = MachineState(preflight_checks(self._config(), ahead), ahead)
        self._checked = time.monotonic()
        self._followed.update(run.id for run in ahead)
        return self._state

    def _poll(self) -> float | None:
        """Check once, and return the seconds until the next time; None if no run is active."""
        before, now = self._state, self._check()  # a start here would undo a stop that comes meanwhile
        if now != before:
            self._on_change()
        ended = self._followed - {run.id for run in now.ahead}  # also those that another look has found first
        self._followed -= ended
        if ended:
            self._on_run_end()
        return _CHECK_SECONDS if now.ahead else None
