"""Start, queue, run name, why Start is disabled or what it will do, and early imports for the click."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from typing import TYPE_CHECKING, Any

import traitlets

from llf_widgets.forms.messages import Message, messages_json
from llf_widgets.forms.section import FormWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class StartControls(FormWidget):
    """The Start button, the queue button, the run's name, and the texts beside them.

    Args:
        on_start: called when a button is pressed; with True for the queue.
        on_focus_field: called with a key when its name in the sentence is pressed.

    Attributes:
        keeps_settings: whether the form's settings are offered when its cell is run again.
    """

    _component = traitlets.Unicode("start_controls").tag(sync=True)
    _ready = traitlets.Bool(default_value=False).tag(sync=True)
    _busy = traitlets.Bool(default_value=False).tag(sync=True)
    _name = traitlets.Unicode("").tag(sync=True)
    _suggested = traitlets.Unicode("").tag(sync=True)
    keeps_settings = traitlets.Bool(default_value=False).tag(sync=True)
    _sentence: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)
    _messages: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        *,
        on_start: Callable[[bool], Any],
        on_focus_field: Callable[[str], None],
        on_fix: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._on_start = on_start
        self._on_focus_field = on_focus_field
        self._on_fix = on_fix
        self._shown_messages: Sequence[Message] = ()
        super().__init__()
        self.on_msg(self._receive)

    @property
    def name(self) -> str:
        """Name of the run to start: as typed, else the suggested one."""
        return self._name.strip() or self._suggested

    @property
    def ready(self) -> bool:
        """Whether Start is enabled; clicks while it is disabled are ignored."""
        return bool(self._ready)

    def show(
        self,
        *,
        ready: bool,
        busy: bool,
        sentence: Sequence[Mapping[str, str]],
        messages: Sequence[Message],
        suggested: str,
    ) -> None:
        """Update all controls in one message to the page.

        Args:
            busy: whether another run is active, so that the queue is offered.
            sentence: its parts; a part with a `key` links to that field.
        """
        self._shown_messages = messages
        with self.hold_sync():
            self._ready = ready
            self._busy = busy
            self._sentence = [dict(part) for part in sentence]
            self._messages = messages_json(messages)
            self._suggested = suggested

    def reveal(self, part: str) -> None:
        """Scroll a part of the form, by its CSS class, into view."""
        self.send({"type": "reveal", "part": part})

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if content["type"] in {"start", "queue"}:
            try:
                self._on_start(content["type"] == "queue")
            finally:
                self.send({"type": "done"})
        elif content["type"] == "focus_field":
            self._on_focus_field(content["key"])
        elif content["type"] == "fix" and content["message"] < len(self._shown_messages):
            self._on_fix(self._shown_messages[content["message"]].fixes[content["fix"]][1])


def blocked_sentence(errors: Sequence[tuple[str, str, str]], others: Sequence[str]) -> list[dict[str, str]]:
    """Parts `{"text", "key"?}` of a sentence why Start is disabled; empty if nothing blocks it.

    Args:
        errors: label, key and section of each field.
        others: other problems, in a word or two.
    """
    total = len(errors) + len(others)
    if not total:
        return []
    parts = [{"text": f"To start, fix {total} error{'s' if total > 1 else ''}: "}]
    for index, (label, key, section) in enumerate(errors):
        parts += [{"text": "; "}] if index else []
        parts += [{"text": label, "key": key}, {"text": f", in {section}"}]
    if others:
        parts.append({"text": ("; " if errors else "") + "; ".join(others)})
    return [*parts, {"text": "."}]


MODULES = (
    "llf_core.launch.start",
    "llf_core.rewards",
    "llf_core.rewards.load",
    "llf_widgets.monitor.widget",
)


@functools.cache
def preload() -> threading.Thread:
    """Import the modules for Start in a background thread, once per process, which takes seconds."""
    thread = threading.Thread(target=_import, name="llf-preload", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    for name in MODULES:
        with contextlib.suppress(ImportError):  # the click needs it again, and says what is missing
            importlib.import_module(name)
