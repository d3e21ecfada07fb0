"""The models of the chats of a kernel, which share their engines, of one chat, and newer weights of their runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError
from llf_core.chat.service import ChatService
from llf_core.chat.target import Target, find_target
from llf_core.config.number_format import with_unit
from llf_core.runs import Checkpoints, open_run, send_request
from llf_core.runs import home as environment_home
from llf_core.runs.formatting import size
from llf_core.runs.listing import shown_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


def _model_json(target: Target, state: EngineState, home: Path | None) -> dict[str, Any]:
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
        "live": _is_live(target, home),
    }


def _weights(target: Target) -> tuple[str, str | None]:
    return target.base_key, target.adapter


POLL_SECONDS = 1.0


def _is_live(target: Target, home: Path | None) -> bool:
    """Whether the run of a model can save further checkpoints."""
    if not target.follows_run:
        return False
    try:
        return shown_status(open_run(target.run_id, home)).state == "running"
    except (OSError, ValueError, RuntimeError):  # the run was deleted, or cannot be read
        return False


def request_checkpoint(target: Target, home: Path | None) -> RunFolder:
    """Request a checkpoint of the running run of a model.

    Raises:
        ValueError: the run is not running, or the model is a fixed checkpoint, the base or of no run.
    """
    folder = open_run(target.run_id, home)
    if not _is_live(target, home):
        raise ValueError(f"{folder.id} is not running, so it saves no checkpoint.")
    send_request(folder, "checkpoint", by="chat")
    return folder


def wait_for_checkpoint(
    folder: RunFolder, after: int, seconds: float, is_closed: Callable[[], bool] = lambda: False
) -> bool:
    """Wait for a checkpoint after step `after`, or the result of a run that ends, and return whether there is one.

    Args:
        is_closed: whether to stop waiting, since the view was closed; asked every second.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_closed():
        ended = shown_status(folder).has_ended  # before the look, so that none is saved after it
        steps = Checkpoints(folder).list()
        if steps and steps[-1] > after:
            return True
        if ended:
            return folder.output.is_dir()
        time.sleep(POLL_SECONDS)
    return False


MAX_MODELS = 4


class ViewModels:
    """The models of a chat in the order of their columns. Its lock is held by whoever changes them.

    Attributes:
        given: the argument of the call for each model, by name; also of a closed view.
    """

    def __init__(self, shared: SharedModels, home: Path | None) -> None:
        self.targets: dict[str, Target] = {}
        self.given: dict[str, str] = {}
        self.shared, self.home = shared, home

    def acquire(self, target: str | Path | Run | RunFolder) -> str:
        """Add a model; one that the chat has already is left as it is."""
        found = self.shared.acquire(target, self.home)
        if found.name in self.targets:
            self.shared.release(found.name)
            return found.name
        self.targets[found.name] = found
        folder = getattr(target, "folder", target)
        self.given[found.name] = str(getattr(folder, "id", folder))
        return found.name

    def release(self) -> None:
        """Remove all models; those that no other chat uses are unloaded."""
        names, self.targets = list(self.targets), {}
        for name in names:
            self.shared.release(name)

    def run_target(self, name: str) -> Target:
        """The model of a run, whose weights may change.

        Raises:
            ValueError: there is no such model, or it does not stand for the newest weights of a run.
        """
        target = self.targets.get(name)
        if target is None or not target.follows_run:
            raise ValueError(
                f"{str(name)[:200]!r} does not stand for a run. Expected one of: {', '.join(self.targets)}."
            )
        return target

    def renew(self, name: str) -> str:
        """Use the newest weights of a run, and return a sentence that says which these are."""
        target = self.run_target(name)
        new = self.shared.renew(target, self.home)
        self.targets[name] = new
        return f"{name} answers with {new.label}." if new != target else f"{name} has the newest weights."

    def shown(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The models for the page, see `_model_json`, and the code of theirs that would run and was not allowed."""
        known = self.shared.service.targets
        self.targets = {name: known.get(name, target) for name, target in self.targets.items()}
        states = {name: self.shared.service.state(name) for name in self.targets}
        code = {str(one["sha256"]): one for state in states.values() for one in state.code}
        return [_model_json(target, states[name], self.home) for name, target in self.targets.items()], [*code.values()]

    def start(self) -> None:
        """Begin to load all models."""
        for name in self.targets:
            self.shared.service.start(name)

    def stop(self) -> None:
        """End the engines to free their memory; the next question starts them again."""
        for name in self.targets:
            self.shared.service.stop(name)

    def check_sight(self, pictures: Sequence[dict[str, Any]]) -> None:
        """Refuse pictures for a model that is known to read none, since it would refuse each later question too.

        Raises:
            PictureError: there are pictures, and a loaded model reads none.
        """
        blind = [name for name in self.targets if self.shared.service.state(name).is_blind]
        if pictures and blind:
            raise PictureError(f"{blind[0]} reads no pictures.", "Remove the pictures, or the model.")
