"""The models of the chats of a kernel, which share their engines: a cell that is run again loads nothing twice."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from llf_core.chat.service import ChatService
from llf_core.chat.target import Target, find_target
from llf_core.config.number_format import with_unit
from llf_core.runs import home as environment_home
from llf_core.runs.formatting import size
from llf_widgets.chat.live_run import is_live

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.chat_engine import EngineState
    from llf_core.launch import Run
    from llf_core.runs import RunFolder


class SharedModels:
    """The models of all chats with one `LLF_HOME`."""

    def __init__(self, service: ChatService) -> None:
        self.service = service
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    def acquire(self, target: str | Path | Run | RunFolder | Target, home: Path | None) -> Target:
        """Add a model (see `find_target`), or take the one with equal weights that another chat has added.

        Newer weights of a run replace older ones that another chat has, as with `renew`.
        """
        found = target if isinstance(target, Target) else find_target(target, home)
        with self._lock:
            alike = [one for one in self.service.targets.values() if one.follows_run == found.follows_run]
            known = [one for one in alike if _weights(one) == _weights(found)]
            older = [one for one in alike if found.follows_run and one.run_id == found.run_id]
            if known or not older:
                taken = known[0] if known else self.service.add(found)
            else:
                taken = self.service.replace(older[0].name, found)
            self._users[taken.name] += 1
        return taken

    def release(self, name: str) -> None:
        """Remove a model if no other chat has it, so that its memory is free."""
        with self._lock:
            self._users[name] -= 1
            if self._users[name] > 0:
                return
            del self._users[name]
        self.service.remove(name)

    def renew(self, target: Target, home: Path | None) -> Target:
        """Replace the weights of a run by its newest ones, for all chats that have the model; the name stays."""
        found = find_target(target.run_id, home)
        current = self.service.targets.get(target.name, target)
        return current if _weights(found) == _weights(current) else self.service.replace(target.name, found)


_shared: dict[tuple[Path, bool], SharedModels] = {}
_shared_lock = threading.Lock()


def shared_models(home: Path | None, *, trust: bool) -> SharedModels:
    """The models of this kernel, one object for each `LLF_HOME` and value of `trust`."""
    key = (home or environment_home(), trust)
    with _shared_lock:
        if key not in _shared:
            _shared[key] = SharedModels(ChatService(home=home, trust=trust))
        return _shared[key]


def model_json(target: Target, state: EngineState, home: Path | None) -> dict[str, Any]:
    """A model and its engine as the page shows them; `engine` is equal for models that share one."""
    about = [target.label if target.base == target.name else f"{target.label}, {target.base}"]
    if state.phase == "ready":
        about += [f"{state.dtype} on {state.device}", f"{' '.join(size(state.weight_bytes))} of weights"]
        about += [f"reads {with_unit(state.context, 'token')}"] if state.context else []
    return {
        "name": target.name,
        "about": ", ".join(filter(None, about)),
        "phase": state.phase,
        "progress": state.progress,
        "reason": state.reason,
        "memory": state.memory_bytes,
        "engine": target.base_key,
        "tools": state.calls_tools,
        "blind": state.is_blind,
        "thinks": state.thinks,
        "run": target.follows_run,
        "live": is_live(target, home),
    }


def _weights(target: Target) -> tuple[str, str | None]:
    return target.base_key, target.adapter
