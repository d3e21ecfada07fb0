from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError, check_together, part_url, picture_bytes, picture_part
from llf_core.config.paths import expanded, is_there
from llf_core.runs.formatting import size
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llf_core.chat.service import ChatService


class WaitingPictures:
    """The pictures of the next question of a chat in a terminal; `parts` are in OpenAI's form."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._lengths: list[int] = []

    def add(self, given: str) -> None:
        """Add a picture, by its path as it was typed: with or without quotes, as terminals paste it.

        Raises:
            UserError: there is no such file, it cannot be read, is no picture, or is too large.
        """
        path = _typed(given)
        try:
            part = picture_part(path)
        except FileNotFoundError:
            raise UserError(f"There is no file {path}.", "Expected the path of a picture.") from None
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        length = len(picture_bytes(part_url(part)))
        check_together(length, sum(self._lengths), path)
        self.parts.append(part)
        self._names.append(path)
        self._lengths.append(length)

    def drop(self, number: str = "") -> None:
        """Remove a picture by its number in `text`, from 1; empty for all.

        Raises:
            UserError: there is no picture with this number, or none at all.
        """
        if not self.parts:
            raise UserError("No picture waits for the next question.", "Add one with /image PATH.")
        if not number:
            self.clear()
            return
        if number not in map(str, range(1, len(self.parts) + 1)):
            raise UserError(f"There is no picture {number[:80]}.", f"Expected a number from 1 to {len(self.parts)}.")
        for each in (self.parts, self._names, self._lengths):
            del each[int(number) - 1]

    def clear(self) -> None:
        """Forget all pictures."""
        for each in (self.parts, self._names, self._lengths):
            each.clear()

    def text(self) -> str:
        """A line for each picture: its number, file and size."""
        if not self.parts:
            return "No picture waits for the next question."
        rows = zip(self._names, self._lengths, strict=True)
        return "\n".join(
            f"Picture {number} of the next question: {name} ({' '.join(size(length))})"
            for number, (name, length) in enumerate(rows, 1)
        )


def check_sight(service: ChatService, names: Iterable[str]) -> None:
    """Refuse pictures for a loaded model that reads none.

    Raises:
        PictureError: a loaded model reads no pictures.
    """
    blind = [name for name in names if service.state(name).is_blind]
    if blind:
        raise PictureError(f"{blind[0]} reads no pictures.", "Remove them with /drop, or ask a vision model.")


def _typed(given: str) -> str:
    """The path that was typed; without quotes and backslashes unless there is such a file."""
    if is_there(expanded(given)):
        return given
    try:
        (path,) = shlex.split(given)
    except ValueError:  # an open quote, or several words
        return given
    return path
