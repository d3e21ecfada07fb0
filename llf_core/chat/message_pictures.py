"""Pictures of a request's messages, checked before a model or server gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.chat.picture import PictureError, part_url, picture_bytes
from llf_core.chat.request import RequestError
from llf_core.generation.message_prompt import IMAGE_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence


def is_picture(part: object) -> bool:
    """Whether a content part is a picture, in any of the notations that templates know."""
    return isinstance(part, dict) and part.get("type") in IMAGE_TYPES


def checked_url(part: dict[str, Any], number: int) -> str:
    """Take the data URL of a picture part. A path or an address, which a model's process would open, is refused.

    Raises:
        RequestError: it is not a data URL of a picture, or the picture is too large or cannot be read.
    """
    url = part_url(part)
    try:
        picture_bytes(url, f"The picture of message {number + 1}")
    except PictureError as error:
        raise RequestError(str(error)) from error
    return url


def with_checked_pictures(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with each picture checked, in OpenAI's format."""
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
