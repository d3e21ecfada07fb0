"""Images, videos and audio of an example: placed in its text and passed to the model's processor."""

from __future__ import annotations

import base64
import io
import re
from array import array
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.paths import expanded
from llf_core.data.errors import BadExample
from llf_core.data.formats.conversation import Medium
from llf_core.data.label_mask import Encoded, Turn, build_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from transformers import ProcessorMixin

    from llf_core.data.formats.conversation import Conversation, Message
    from llf_core.data.rendered import Rendered
    from llf_core.data.word_cache import FastTokenizer

KINDS = {"images": "image", "videos": "video", "audios": "audio"}
"""LLaMA-Factory's column names, and the kind of each entry."""
PROCESSOR_ARGUMENTS = {"image": "images", "video": "videos", "audio": "audio"}
"""Name of the processor's argument for each kind."""
PLACEHOLDER = re.compile("(<image>|<video>|<audio>)")
INLINE = "data:;base64,"


def add_media(
    conversation: Conversation,
    row: Mapping[str, object],
    columns: Mapping[str, str],
    folder: Path,
    placeholders: Mapping[str, str] | None = None,
) -> Conversation:
    """Add media to a conversation, whose contents become lists of parts, as templates of multimodal models take them.

    `<image>`, `<video>` and `<audio>` in the text are placeholders for the entries of their columns. Without
    placeholders, media come before the first question. This is LLaMA-Factory's convention.

    Args:
        conversation: conversation of the row.
        row: the record.
        columns: the data set's column for each of LLaMA-Factory's names.
        folder: base folder of relative paths.
        placeholders: text for each kind, for a template that takes content as strings only; None for a template that
            takes lists of parts.

    Returns:
        A new conversation with its media in the order of their placeholders.

    Raises:
        BadExample: the number of placeholders differs from the number of media, a value is not the path or bytes of a
            file, or the template does not support a kind.
    """
    given = {
        kind: [_medium(kind, value, folder) for value in _listed(row.get(columns.get(column, "")))]
        for column, kind in KINDS.items()
    }
    messages = list(conversation.messages)
    text = "".join(message["content"] for message in messages)
    if any(given.values()) and not PLACEHOLDER.search(text):
        first = next(place for place, message in enumerate(messages) if message["role"] == "user")
        named = "".join(f"<{kind}>" for kind, found in given.items() for _ in found)
        messages[first] = {**messages[first], "content": named + messages[first]["content"]}
    used: list[Medium] = []
    left = {kind: iter(found) for kind, found in given.items()}
    seen = any(column in columns for column in KINDS)
    for place, message in enumerate(messages):
        parts: list[dict[str, str]] = []
        for piece in PLACEHOLDER.split(message["content"]) if seen else [message["content"]]:
            if seen and PLACEHOLDER.fullmatch(piece):
                kind = piece[1:-1]
                medium = next(left[kind], None)
                if medium is None:
                    raise BadExample(f"its text has more {piece} than the {len(given[kind])} that it has")
                used.append(medium)
                parts.append({"type": kind})
            elif piece or not message["content"]:
                parts.append({"type": "text", "text": piece})
        messages[place] = (
            {**message, "parts": parts} if placeholders is None else _in_text(message, parts, placeholders)
        )
    for kind, found in left.items():
        if any(True for _ in found):
            raise BadExample(f"it has more {kind} data than <{kind}> markers in its text")
    rejected = conversation.rejected
    if rejected is not None and placeholders is None:  # the rejected answer of a pair; media in it are not supported
        rejected = {**rejected, "parts": [{"type": "text", "text": rejected["content"]}]}
    return replace(conversation, messages=tuple(messages), rejected=rejected, media=tuple(used))


def _in_text(message: Message, parts: list[dict[str, str]], placeholders: Mapping[str, str]) -> Message:
    unknown = {part["type"] for part in parts} - {"text", *placeholders}
    if unknown:
        raise BadExample(f"the model's chat template does not support {', '.join(sorted(unknown))}")
    text = "".join(part["text"] if part["type"] == "text" else placeholders[part["type"]] for part in parts)
    return {**message, "content": text}


def content_parts(messages: Sequence[Message]) -> list[Message]:
    """Convert messages to the form that templates of multimodal models take: `content` is the list of parts.

    transformers' templates and processors expect them in this form.

    Args:
        messages: messages, of which those of a multimodal conversation have `parts`.

    Returns:
        The messages, without the key `parts`; those without parts are unchanged.
    """
    return [
        {key: value for key, value in message.items() if key != "parts"} | {"content": message["parts"]}
        if "parts" in message
        else message
        for message in messages
    ]


def encode_multimodal(
    processor: ProcessorMixin, library: FastTokenizer, rendered: Rendered, *, train_on_prompt: bool = False
) -> Encoded:
    """Tokenize an example with media. The processor inserts as many tokens for each as the model uses.

    Each answer, and the text between answers, is processed separately, so that the ranges of the answers are known. The
    result is checked against the tokens of the whole text.

    Args:
        processor: processor of the model.
        library: fast implementation of its tokenizer.
        rendered: with `media`. If it has `cuts`, the text is tokenized in these pieces.
        train_on_prompt: whether the loss includes every token.

    Returns:
        Token ids and labels `[seq]`, including those of the media, whose labels are -100.

    Raises:
        BadExample: a file cannot be read, the template leaves out a medium, or the tokens differ.
        MemoryError: out of memory.
        DataError: the tokenizer fails on the text.
    """
    inner = rendered.cuts or tuple(border for answer in rendered.answers for border in answer)
    borders = sorted({0, *inner, len(rendered.text)})
    pieces = [rendered.text[start:end] for start, end in pairwise(borders)]
    if rendered.cuts is None:
        (whole,) = library.ids([rendered.text])
        if [one for ids in library.ids(pieces) for one in ids] != list(whole):
            raise BadExample("the tokenizer splits the prompt differently when the response follows")
    placeholders = {kind: str(getattr(processor, f"{kind}_token", "") or "") for kind in PROCESSOR_ARGUMENTS}
    left = {kind: [one for one in rendered.media if one.kind == kind] for kind in PROCESSOR_ARGUMENTS}
    ids: list[int] = []
    places = {0: 0}
    for (_, end), piece in zip(pairwise(borders), pieces, strict=True):
        taken: list[Medium] = []
        for kind, sign in placeholders.items():
            count = piece.count(sign) if sign else 0
            taken += left[kind][:count]
            del left[kind][:count]
        ids += process(processor, [piece], [taken])["input_ids"][0] if taken else library.ids([piece])[0]
        places[end] = len(ids)
    if any(left.values()):
        raise BadExample("the chat template does not render all of its media")
    turns = tuple(Turn(places[first], places[last]) for first, last in rendered.answers)
    return build_labels(array("i", ids), turns, train_on_prompt=train_on_prompt)


def check_no_placeholders(processor: ProcessorMixin, text: str) -> None:
    """Refuse a text without media that contains a placeholder token, at which the model would expect media.

    Args:
        processor: processor of the model.
        text: rendered text.

    Raises:
        BadExample: the text contains the placeholder of an image, video or audio.
    """
    for kind in PROCESSOR_ARGUMENTS:
        sign = getattr(processor, f"{kind}_token", None)
        if sign and str(sign) in text:
            raise BadExample(f"its text has {sign}, which marks {kind} data that it does not have")


def process(
    processor: ProcessorMixin, texts: list[str], media: Sequence[Sequence[Medium]], **options: object
) -> dict[str, Any]:
    """Run a processor on texts and their media, with every failure of it as a reason to drop the example.

    Processors raise errors of many types for one bad file, which must not end a preparation.

    Args:
        processor: processor of the model.
        texts: rendered conversations.
        media: media of each text, in order of their placeholders.
        options: options of the tokenizer.

    Returns:
        The processor's output by name, with `input_ids` as lists, or tensors `[batch, seq]` with `return_tensors="pt"`.

    Raises:
        BadExample: a file cannot be read, or the processor does not accept it.
        MemoryError: out of memory.
    """
    given: dict[str, list[Image | str] | list[list[Image | str]]] = {}
    for kind, argument in PROCESSOR_ARGUMENTS.items():
        found = [[_opened(one) for one in group if one.kind == kind] for group in media]
        if any(found):
            given[argument] = found if all(found) else [one for group in found for one in group]
    try:
        made = processor(text=texts, **given, add_special_tokens=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of any type, also a division by zero for an image of one pixel
        raise BadExample(f"the model's processor cannot process it: {_reason(error)}") from None
    return dict(made)


def _listed(value: object) -> list[object]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _medium(kind: str, value: object, folder: Path) -> Medium:
    if isinstance(value, dict):  # as stored by the feature `Image` of `datasets`
        if value.get("bytes"):
            return Medium(kind, INLINE + base64.b64encode(value["bytes"]).decode())
        value = value.get("path")
    if not isinstance(value, str):
        raise BadExample(f"its {kind} is a {type(value).__name__}, expected the path of a file")
    if value.startswith("data:"):
        return Medium(kind, INLINE + value.partition(",")[2])
    if "://" in value:
        raise BadExample(f"its {kind} {value} is not on this disk, and LLF does not download media: download it first")
    path = expanded(value)
    return Medium(kind, str(path if path.is_absolute() else folder / path))


def _opened(medium: Medium) -> Image | str:
    """The image in RGB; for other kinds the path, which the processor opens."""
    if medium.kind != "image":
        if not Path(medium.value).is_file():
            raise BadExample(f"there is no file {medium.value}")
        return medium.value
    import PIL.Image

    inline = medium.value.startswith(INLINE)
    try:
        source = io.BytesIO(base64.b64decode(medium.value.removeprefix(INLINE))) if inline else medium.value
        with PIL.Image.open(source) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise BadExample(f"there is no file {medium.value}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise errors of any type for a damaged or a huge image
        name = "its inline image" if inline else f"the image {medium.value}"
        raise BadExample(f"{name} cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """The first line of a library's message, or the type of an error without one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
