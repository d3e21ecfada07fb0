"""Adapters that an engine's server has loaded."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(eq=False)
class _Adapter:
    """An adapter that the server loads; for `refused` see `ServerAdapters.refusal`."""

    folder: str
    refused: str | None = None


class ServerAdapters:
    """Has a server load and unload adapters in a thread, in order, so that a new one never takes a loaded one's name.

    Args:
        load: called with name and folder; returns why the server does not load the adapter, or an empty text.
    """

    def __init__(self, load: Callable[[str, str], str], unload: Callable[[str], object]) -> None:
        self._load, self._unload = load, unload
        self._adapters: dict[str, _Adapter] = {}
        self._changes: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="llf-adapters").start()

    def add(self, name: str, folder: str) -> None:
        """Have an adapter (folder or hub id) loaded in place of one of the same name; one that was refused, again."""
        with self._lock:
            known = self._adapters.get(name)
            if known is not None and known.folder == folder and not known.refused:
                return
            adapter = self._adapters[name] = _Adapter(folder)
            if known is not None and known.folder != folder:
                self._changes.put(partial(self._unload, name))
            self._changes.put(partial(self._try, name, adapter))

    def remove(self, name: str) -> None:
        """Have an adapter unloaded, if it was added."""
        with self._lock:
            if self._adapters.pop(name, None) is not None:
                self._changes.put(partial(self._unload, name))

    def refusal(self, name: str) -> str | None:
        """Why an adapter cannot be used; empty if it can, None while it is being loaded."""
        with self._lock:
            found = self._adapters.get(name)
        return f"The adapter {name} was removed." if found is None else found.refused

    def close(self) -> None:
        """End the thread after the changes that wait."""
        self._changes.put(None)

    def _run(self) -> None:
        while (change := self._changes.get()) is not None:
            change()

    def _try(self, name: str, adapter: _Adapter) -> None:
        adapter.refused = self._load(name, adapter.folder)
