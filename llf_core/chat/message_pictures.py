"""The pictures of a request's messages, checked before any model or server gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError, part_url, picture_bytes
from llf_core.chat.request import RequestError
from llf_core.generation.message_prompt import IMAGE_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence


def is_picture(part: object) -> bool:
    """Whether a content part of a message is a picture, in any of the notations that templates know."""
    return isinstance(part, dict) and part.get("type") in IMAGE_TYPES


def checked_url(part: dict[str, Any], number: int) -> str:
    """Take the data URL of a picture; a path or an address, which a model's process or server would open, is refused.

    Args:
        part: the content part, see `is_picture`.
        number: number of its message, from 0, for the error.

    Raises:
        RequestError: it is no data URL of a picture, or the picture is too large or cannot be read.
    """
    url = part_url(part)
    try:
        picture_bytes(url, f"The picture of message {number + 1}")
    except PictureError as error:
        raise RequestError(str(error)) from error
    return url


def with_checked_pictures(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with each picture in OpenAI's form, so that a server opens no address that a message names."""
    return [
        message | {"content": [_openai_part(part, number) for part in content]}
        if isinstance(content := message.get("content"), list)
        else message
        for number, message in enumerate(messages)
    ]


def _openai_part(part: Any, number: int) -> Any:
    if not is_picture(part):
        return part
    return {"type": "image_url", "image_url": {"url": checked_url(part, number)}}
