"""Pictures of messages: data URLs, checked before a model, a file or a page gets them."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from typing import TYPE_CHECKING, Any

from llf_core.chat.request import RequestError
from llf_core.config.paths import expanded
from llf_core.generation.text_stream import IMAGE_TYPES
from llf_core.runs.formatting import size
from llf_core.untrusted import brief, read_bytes
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

FORMATS = ("png", "jpeg", "webp", "gif")
MAX_BYTES = 6_000_000
"""Maximum size of a picture: its Base64 text of 8,000,000 characters fits into a message of a conversation, and into
a body that the server reads."""
MAX_PIXELS = 50_000_000
"""Maximum width times height of a picture, which takes 150 MB once it is decoded."""
EXPECTED = "a picture in PNG, JPEG, WebP or GIF"
_BEGINNING = re.compile(rf"data:image/(?:{'|'.join(FORMATS)});base64,")
_SHOWN = 60


class PictureError(UserError, ValueError):
    """A picture that cannot be sent to a model."""


def picture_bytes(url: object, subject: str = "The picture") -> bytes:
    """Take the bytes of a picture out of a data URL, without decoding pixels. Nothing is ever fetched or opened.

    Args:
        url: `data:image/png;base64,…`, or JPEG, WebP or GIF; of any type, since it may come from a file or a client.
        subject: name of the picture in messages, as the beginning of a sentence.

    Raises:
        PictureError: it is not such a URL or picture, or has more than `MAX_BYTES` or `MAX_PIXELS`.
    """
    start = _BEGINNING.match(url) if isinstance(url, str) else None
    if start is None or not isinstance(url, str):
        raise PictureError(
            f"{subject} is {str(url)[:_SHOWN]!r}. Expected a data URL, data:image/png;base64,… (or jpeg, webp, "
            "gif): no address and no file is opened."
        )
    if (length := (len(url) - start.end()) * 3 // 4) > MAX_BYTES:
        raise _too_large(length, subject)
    try:
        data = base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(f"{subject} is {url[:_SHOWN]!r}. Expected valid Base64 after the comma.") from None
    _check(data, subject)
    return data


def picture_url(data: bytes, subject: str = "The picture") -> str:
    """The data URL of a picture."""
    return f"data:image/{_check(data, subject)};base64,{base64.b64encode(data).decode()}"


def check_together(length: int, others: int, name: str) -> None:
    """Refuse a picture if a question, which keeps all pictures in one line, would have more than `MAX_BYTES`.

    Raises:
        PictureError: they have more together.
    """
    if length + others > MAX_BYTES:
        raise PictureError(
            f"{name} was not added: the pictures of the question would have {' '.join(size(length + others))} "
            f"together. Expected at most {' '.join(size(MAX_BYTES))}."
        )


def question_content(text: str, pictures: Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Content of a question: text, or parts with the pictures before the text, where templates expect them."""
    if not pictures:
        return text
    return [*pictures, *([{"type": "text", "text": text}] if text.strip() else [])]


def picture_part(given: str | os.PathLike[str] | bytes | Image) -> dict[str, Any]:
    """The content part, in OpenAI's format, of a file, its content, a data URL, or an image of Pillow (sent as PNG).

    Raises:
        PictureError: it is not a picture of the `FORMATS`, is an address, has more than `MAX_BYTES` or `MAX_PIXELS`, or
            cannot be written as PNG.
    """
    if isinstance(given, str) and given.startswith("data:"):
        picture_bytes(given)
        return _part(given)
    if isinstance(given, str) and "://" in given:
        raise PictureError(f"The picture {brief(given)} is an address, which is not opened.", "Download it first.")
    if isinstance(given, bytes):
        return _part(picture_url(given))
    if isinstance(given, str | os.PathLike):
        if not os.fspath(given) or "\0" in os.fspath(given):
            raise PictureError(f"The picture {brief(repr(given))} is no path. Expected the path of a file.")
        path = expanded(os.fspath(given))
        return _part(picture_url(read_bytes(path, MAX_BYTES), str(path)))
    if not hasattr(given, "save"):
        raise PictureError(
            f"A picture is of type {type(given).__name__}. Expected a path, bytes, a data URL or an image of Pillow."
        )
    return image_part(given)


def image_part(image: Image) -> dict[str, Any]:
    """The content part of an image of Pillow, as PNG.

    Raises:
        PictureError: it is too large, or cannot be written as PNG: it is CMYK, empty, closed, or its file is damaged.
    """
    file = io.BytesIO()
    try:
        image.save(file, "PNG")
    except (OSError, ValueError, SystemError) as error:
        raise PictureError(
            f"The picture cannot be sent as PNG: {str(error).rstrip('.')}.", "Convert it: image.convert('RGB')."
        ) from None
    return _part(picture_url(file.getvalue()))


def part_url(part: Mapping[str, object]) -> str:
    """The unchecked URL of a content part of the type `image_url`, or `image` as some templates name it."""
    given = part.get("image_url") or part.get("image")
    url = given.get("url") if isinstance(given, dict) else given
    return url if isinstance(url, str) else ""


def _part(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def _check(data: bytes, subject: str) -> str:
    """Check the bytes of a picture; its format in lower case."""
    if len(data) > MAX_BYTES:
        raise _too_large(len(data), subject)
    try:
        import PIL.Image
    except ImportError:
        raise PictureError("Pictures need the package Pillow.", "Run pip install pillow.") from None
    huge = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=[name.upper() for name in FORMATS]) as image:
            kind, pixels = str(image.format).lower(), image.width * image.height
    except huge:
        raise PictureError(f"{subject} is too large. Expected at most {MAX_PIXELS:,} pixels.") from None
    except Exception:  # noqa: BLE001 - decoders raise errors of any type for damaged data
        raise PictureError(f"{subject} cannot be read. Expected {EXPECTED}.") from None
    if pixels > MAX_PIXELS:
        raise PictureError(f"{subject} has {pixels:,} pixels. Expected at most {MAX_PIXELS:,}.")
    return kind if kind in FORMATS else "jpeg"  # MPO: a JPEG with further pictures behind it


def _too_large(length: int, subject: str) -> PictureError:
    return PictureError(f"{subject} has {' '.join(size(length))}. Expected at most {' '.join(size(MAX_BYTES))}.")


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
