"""Pictures of a chat: added to the next question, or part of the conversation.

They are in none of the view's traits, which are sent as a whole: the page requests each picture once, by its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import MAX_BYTES, PictureError, check_together, is_picture, part_url, picture_bytes
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from llf_core.chat.conversation import ChatMessage, Conversation

MAX_WAITING_BYTES = 8 * MAX_BYTES
"""Maximum size of all pictures that wait to be sent, including those of closed pages."""


class AddedPictures:
    """Pictures that pages have added to a question and not sent yet, by the key that the page gave each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}

    def add(self, key: str, name: str, url: object, beside: Collection[str]) -> None:
        """Check and store a picture that was added to a question.

        The oldest pictures are removed while all have more than `MAX_WAITING_BYTES`.

        Args:
            url: data URL of the picture; or its number of bytes, if it is too large to be sent.
            beside: keys of the other pictures of the question.

        Raises:
            PictureError: it is not a picture, or is too large, by itself or with the others.
        """
        if isinstance(url, int):
            raise PictureError(f"{name} has {' '.join(size(url))}. Expected at most {' '.join(size(MAX_BYTES))}.")
        length = len(picture_bytes(url, name))
        check_together(length, sum(self._found[one][1] for one in beside if one in self._found), name)
        self._found[key] = (str(url), length)
        while sum(length for _, length in self._found.values()) > MAX_WAITING_BYTES:
            del self._found[next(iter(self._found))]

    def urls(self, keys: Iterable[str]) -> list[str]:
        """The data URLs of pictures.

        Raises:
            PictureError: one of them was removed.
        """
        try:
            return [self._found[key][0] for key in keys]
        except KeyError:
            raise PictureError(
                "A picture of the question is gone.", "Remove the pictures, and add them again."
            ) from None

    def discard(self, keys: Iterable[str]) -> None:
        """Forget pictures that were sent or removed, to free their memory."""
        for key in keys:
            self._found.pop(key, None)


def picture_keys(message: ChatMessage) -> list[str]:
    """Keys of the pictures of a message, by which the page asks for them."""
    return [f"{message.id}-{place}" for place in range(len(pictures_of(message)))]


def pictures_of(message: ChatMessage, keys: Iterable[object] | None = None) -> list[dict[str, Any]]:
    """Content parts of a message that are pictures: all, or those at the places that `keys` end with."""
    parts = message.content if isinstance(message.content, list) else []
    found = [part for part in parts if is_picture(part)]
    if keys is None:
        return found
    places = {str(key).rpartition("-")[2] for key in keys}
    return [part for place, part in enumerate(found) if str(place) in places]


def shown_url(conversation: Conversation, key: str) -> str:
    """The data URL of a picture in a conversation, for its page."""
    message = conversation.messages.get(key.rpartition("-")[0])
    found = pictures_of(message, [key]) if message is not None else []
    try:
        return part_url(found[0]) if found and picture_bytes(part_url(found[0])) else ""
    except PictureError:
        return ""
