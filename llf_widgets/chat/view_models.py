"""The models of one chat and their engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError
from llf_widgets.chat.models import model_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llf_core.chat.target import Target
    from llf_core.launch import Run
    from llf_core.runs import RunFolder
    from llf_widgets.chat.models import SharedModels

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
        """The models for the page, see `model_json`, and the code of theirs that would run and was not allowed."""
        known = self.shared.service.targets
        self.targets = {name: known.get(name, target) for name, target in self.targets.items()}
        states = {name: self.shared.service.state(name) for name in self.targets}
        code = {str(one["sha256"]): one for state in states.values() for one in state.code}
        return [model_json(target, states[name], self.home) for name, target in self.targets.items()], [*code.values()]

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
