"""The models of the chats of a kernel, which share their engines: a cell that is run again loads nothing twice."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from llf_core.chat.service import ChatService
from llf_core.chat.target import find_target
from llf_core.config.number_format import with_unit
from llf_core.runs import home as environment_home
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.chat.chat_engine import EngineState
    from llf_core.chat.target import Target
    from llf_core.launch import Run
    from llf_core.runs import RunFolder


class SharedModels:
    """The models of all chats with one `LLF_HOME`.

    Args:
        service: holds the engines.

    Attributes:
        service: holds the engines.
    """

    def __init__(self, service: ChatService) -> None:
        self.service = service
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    def acquire(self, target: str | Path | Run | RunFolder, home: Path | None) -> Target:
        """Add a model, or take the one that another chat has added.

        Args:
            target: see `llf_core.chat.target.find_target`.
            home: `LLF_HOME`; None for the environment's.

        Returns:
            The target by which the service knows it.

        Raises:
            TargetError: nothing has this name, or it generates no text.
            ConfigError: the config of the run is no longer valid.
            UnreadableError: the `adapter_config.json` is not a regular file or too large.
            TypeError: the target is of another type.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the status of the run cannot be read.
            OSError: a file cannot be read.
        """
        found = find_target(target, home)
        with self._lock:
            known = [one for one in self.service.targets.values() if _weights(one) == _weights(found)]
            taken = known[0] if known else self.service.add(target)
            self._users[taken.name] += 1
        return taken

    def release(self, name: str) -> None:
        """Remove a model if no other chat has it.

        Args:
            name: its name.
        """
        with self._lock:
            self._users[name] -= 1
            if self._users[name] > 0:
                return
            del self._users[name]
        self.service.remove(name)


_shared: dict[tuple[Path, bool], SharedModels] = {}
_shared_lock = threading.Lock()


def shared_models(home: Path | None, *, trust: bool) -> SharedModels:
    """The models of this kernel.

    Args:
        home: `LLF_HOME`; None for the environment's.
        trust: whether Python code of the models may run that has not been allowed yet.

    Raises:
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
    """
    key = (home or environment_home(), trust)
    with _shared_lock:
        if key not in _shared:
            _shared[key] = SharedModels(ChatService(home=home, trust=trust))
        return _shared[key]


def model_json(target: Target, state: EngineState) -> dict[str, Any]:
    """A model and its engine for the page.

    Args:
        target: the model.
        state: what its engine does.
    """
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
        "sees": state.sees_images,
        "thinks": state.thinks,
    }


def _weights(target: Target) -> tuple[str, str | None]:
    """Equal for targets with the same weights."""
    return target.base_key, target.adapter
