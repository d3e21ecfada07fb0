"""The models of one chat: which they are, what their engines do, and what they can."""

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
"""Maximum number of models in a chat."""


class ViewModels:
    """The models of a chat in the order of their columns. Its lock is held by whoever changes them.

    Args:
        shared: the models of all chats of the kernel.
        home: `LLF_HOME`; None for the environment's.

    Attributes:
        targets: the models by name.
        given: what each was named by, for the call that opens the chat again; by name, also of a closed view.
        shared: the models of all chats of the kernel.
        home: `LLF_HOME`; None for the environment's.
    """

    def __init__(self, shared: SharedModels, home: Path | None) -> None:
        self.targets: dict[str, Target] = {}
        self.given: dict[str, str] = {}
        self.shared, self.home = shared, home

    def acquire(self, target: str | Path | Run | RunFolder) -> str:
        """Add a model; one that the chat has already is left as it is.

        Args:
            target: see `llf_core.chat.target.find_target`.

        Returns:
            Its name.

        Raises:
            TargetError, ConfigError: see `llf_core.chat.target.find_target`.
            UnreadableError: the `adapter_config.json` is too large, or the system denies access.
            TypeError: the target is of another type.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the status of the run cannot be read.
            OSError: a file cannot be read.
        """
        found = self.shared.acquire(target, self.home)
        if found.name in self.targets:
            self.shared.release(found.name)
            return found.name
        self.targets[found.name] = found
        folder = getattr(target, "folder", target)
        self.given[found.name] = str(getattr(folder, "id", folder))
        return found.name

    def release(self) -> None:
        """Remove all models; those that no other chat uses give their memory back."""
        names, self.targets = list(self.targets), {}
        for name in names:
            self.shared.release(name)

    def run_target(self, name: str) -> Target:
        """The model of a run, whose weights may change.

        Args:
            name: its name.

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
        """Put the newest weights of a run in the place of older ones, to see what it has learned meanwhile.

        Args:
            name: name of a model that stands for a run.

        Returns:
            A sentence that says what the model answers with.

        Raises:
            ValueError: there is no such model.
            TargetError: the run has no weights any more.
            ConfigError: the config of the run is no longer valid.
            UnreadableError: the `adapter_config.json` is too large, or the system denies access.
            HomeError: the folder `LLF_HOME` cannot be located, see `llf_core.runs.home`.
            PluginError: two installed packages declare the same name or key.
            BrokenRunError: the status of the run cannot be read.
            OSError: a file cannot be read.
        """
        target = self.run_target(name)
        new = self.shared.renew(target, self.home)
        self.targets[name] = new
        return f"{name} answers with {new.label}." if new != target else f"{name} has the newest weights."

    def shown(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The models for the page, see `model_json`, and the code of theirs that would run and was not allowed.

        Another chat may have changed to newer weights of a run; they are taken over.

        Raises:
            TargetError: a model was removed from the service.
        """
        known = self.shared.service.targets
        self.targets = {name: known.get(name, target) for name, target in self.targets.items()}
        states = {name: self.shared.service.state(name) for name in self.targets}
        code = {str(one["sha256"]): one for state in states.values() for one in state.code}
        return [model_json(target, states[name], self.home) for name, target in self.targets.items()], [*code.values()]

    def start(self) -> None:
        """Begin to load all models, so that the first replies come sooner.

        Raises:
            UserError: an engine cannot be started, see `llf_core.chat.service.ChatService.start`.
            OSError: a process cannot be started.
        """
        for name in self.targets:
            self.shared.service.start(name)

    def stop(self) -> None:
        """End the engines to free their memory; the next question starts them again.

        Raises:
            TargetError: another view has closed the service.
        """
        for name in self.targets:
            self.shared.service.stop(name)

    def check_sight(self, pictures: Sequence[dict[str, Any]]) -> None:
        """Refuse pictures for a model that is known to read none: it would refuse each later question too.

        Args:
            pictures: content parts of a question.

        Raises:
            PictureError: there are pictures, and a loaded model reads none.
            TargetError: another view has closed the service.
        """
        blind = [name for name in self.targets if self.shared.service.state(name).is_blind]
        if pictures and blind:
            raise PictureError(f"{blind[0]} reads no pictures.", "Remove the pictures, or the model.")
