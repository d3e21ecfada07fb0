"""Images, videos and audio of an example: placed in its text and passed to the model's processor."""

from __future__ import annotations

import base64
import json
import re
from array import array
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llf_core.config.data import IGNORED
from llf_core.config.paths import expanded
from llf_core.data.conversation import Medium, cell_of
from llf_core.data.errors import BadExample, DataError
from llf_core.data.label_mask import Encoded, Turn, build_labels
from llf_core.data.media_files import INLINE, open_audio, open_image, open_video, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from PIL.Image import Image
    from transformers import ProcessorMixin

    from llf_core.data.conversation import Conversation, Message, Rendered
    from llf_core.data.media_files import MediaLimits
    from llf_core.data.word_cache import FastTokenizer

KINDS = {"images": "image", "videos": "video", "audios": "audio"}
PROCESSOR_ARGUMENTS = {"image": "images", "video": "videos", "audio": "audio"}
PLACEHOLDER = re.compile("(<image>|<video>|<audio>)")
IMAGE_OPTIONS = {"crop_to_patches": "crop_to_patches", "image_do_pan_and_scan": "do_pan_and_scan"}
PREFIX_ATTENTION = {"PaliGemmaProcessor"}
"""Processors of models with bidirectional attention in the prompt. They write further tokens into a text."""
AS_TEXT = "return_for_text_completion"
"""Option of Chameleon's processor that leaves out the separator after each text."""
OWN_CROPS = {"DeepseekOcr2Processor"}
"""Processors that count the tokens of an image right only with the crops that they make themselves."""
FLAT_IMAGES = {"GotOcr2Processor"}
"""Processors that take the images of all texts as one list: a list for each text would be pages of one document."""
OF_TEXT = {"input_ids", "attention_mask"}
VIDEOS_OF_ONE_LENGTH = {"InternVLProcessor"}
"""Processors that take several videos only if all have as many frames."""
UNUSABLE = {
    ("FuyuProcessor", "image"): "writes images before a whole text and the start of an answer after it",
    ("GitProcessor", "image"): "has no token in the place of an image",
    ("PPChart2TableProcessor", "image"): "has no token in the place of an image",
    ("VoxtralProcessor", "audio"): "takes audio only in conversations that mistral-common renders",
}
"""Processors that cannot be run on a rendered conversation with media of a kind, and why."""
USABLE = {"image": "qwen3_vl", "video": "qwen3_vl", "audio": "qwen2_audio"}
NOT_INPUTS = {"labels", "video_metadata"}


def add_media(
    conversation: Conversation,
    row: Mapping[str, object],
    columns: Mapping[str, str],
    folder: Path,
    placeholders: Mapping[str, str] | None = None,
) -> Conversation:
    """Add media to a conversation: its messages get lists of `parts`, as templates of multimodal models take them.

    `<image>`, `<video>` and `<audio>` in the text are placeholders for the entries of their columns. Without
    placeholders, media come before the first message of a user. This is LLaMA-Factory's convention.

    Args:
        placeholders: text for each kind, for a template that takes content as strings only: it is written into the
            content, and no `parts` are added.
    """
    given = {
        kind: [_medium(kind, value, folder) for value in _listed(cell_of(row, columns, column))]
        for column, kind in KINDS.items()
    }
    messages = list(conversation.messages)
    text = "".join(message["content"] for message in messages)
    if any(given.values()) and not PLACEHOLDER.search(text):
        first = next((place for place, message in enumerate(messages) if message["role"] == "user"), None)
        if first is None:
            raise BadExample("it has media but no message of a user to put them into")
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
    rejected = None if conversation.rejected is None else _rejected(conversation, placeholders, media=seen)
    return replace(conversation, messages=tuple(messages), rejected=rejected, media=tuple(used))


def _rejected(conversation: Conversation, placeholders: Mapping[str, str] | None, *, media: bool) -> Message:
    chosen, rejected = conversation.messages[-1], conversation.rejected
    assert rejected is not None  # noqa: S101 - for the type checker
    if media and PLACEHOLDER.search(chosen["content"] + rejected["content"]):
        raise BadExample("images, videos and audio in the responses of a pair are not supported, only in its prompt")
    if placeholders is not None:
        return rejected
    return {**rejected, "parts": [{"type": "text", "text": rejected["content"]}]}


def _in_text(message: Message, parts: list[dict[str, str]], placeholders: Mapping[str, str]) -> Message:
    unknown = {part["type"] for part in parts} - {"text", *placeholders}
    if unknown:
        raise BadExample(f"the model's chat template does not support {', '.join(sorted(unknown))}")
    text = "".join(part["text"] if part["type"] == "text" else placeholders[part["type"]] for part in parts)
    return {**message, "content": text}


def content_parts(messages: Sequence[Message]) -> list[Message]:
    """Convert messages to the form that templates of multimodal models take: `content` is the list of `parts`."""
    return [
        {key: value for key, value in message.items() if key != "parts"} | {"content": message["parts"]}
        if "parts" in message
        else message
        for message in messages
    ]


def encode_multimodal(
    processor: ProcessorMixin,
    library: FastTokenizer,
    rendered: Rendered,
    limits: MediaLimits,
    *,
    train_on_prompt: bool = False,
) -> Encoded:
    """Tokenize an example with media, with as many tokens for each as the model uses, and labels -100 there.

    Each answer, and the text between answers, is processed separately, so that the ranges of the answers are known.
    Unless the text has `cuts`, the tokens of its pieces, without media, must be those of the whole text.
    """
    _check_kinds(processor, {one.kind for one in rendered.media}, limits)
    inner = rendered.cuts or tuple(border for answer in rendered.answers for border in answer)
    borders = sorted({0, *inner, len(rendered.text)})
    pieces = [rendered.text[start:end] for start, end in pairwise(borders)]
    if rendered.cuts is None:
        (whole,) = library.ids([rendered.text])
        if [one for ids in library.ids(pieces) for one in ids] != list(whole):
            raise BadExample("the tokenizer splits the prompt differently when the response follows")
    placeholders = {kind: placeholder_of(processor, kind) for kind in PROCESSOR_ARGUMENTS}
    left = {kind: [one for one in rendered.media if one.kind == kind] for kind in PROCESSOR_ARGUMENTS}
    ids: list[int] = []
    places = {0: 0}
    for (_, end), piece in zip(pairwise(borders), pieces, strict=True):
        taken: list[Medium] = []
        for kind, sign in placeholders.items():
            count = piece.count(sign) if sign else 0
            taken += left[kind][:count]
            del left[kind][:count]
        ids += _ids_with_media(processor, piece, taken, limits) if taken else library.ids([piece])[0]
        places[end] = len(ids)
    if any(left.values()):
        raise BadExample("the chat template does not render all of its media")
    turns = tuple(Turn(places[first], places[last]) for first, last in rendered.answers)
    built = build_labels(array("i", ids), turns, train_on_prompt=train_on_prompt)
    media = media_token_ids(processor)  # nobody predicts the tokens of an image
    labels = array("i", (IGNORED if one in media else one for one in built.labels))
    return built._replace(labels=labels, learned=len(labels) - labels.count(IGNORED))


def _ids_with_media(processor: ProcessorMixin, text: str, media: list[Medium], limits: MediaLimits) -> list[int]:
    # Some processors need tensors to count the tokens of a video.
    made: list[int] = process(processor, [text], [media], limits, return_tensors="pt")["input_ids"][0].tolist()
    return made


def placeholder_of(processor: ProcessorMixin, kind: str) -> str:
    """Placeholder of a kind of media in a text, which the processor replaces; empty if there is none."""
    own = getattr(processor, f"{kind}_placeholder_token", None)  # QianfanOCR: another one than the tokens of the image
    return str(own or getattr(processor, f"{kind}_token", None) or "")


def check_no_placeholders(processor: ProcessorMixin, text: str) -> None:
    """Refuse a text without media that contains a placeholder token, at which the model would expect media."""
    for kind in PROCESSOR_ARGUMENTS:
        sign = placeholder_of(processor, kind)
        if sign and sign in text:
            raise BadExample(f"its text has {sign}, which marks {kind} data that it does not have")


def media_token_ids(processor: ProcessorMixin) -> set[int]:
    """Ids of the tokens that stand for images, videos and audio in a model's input."""
    found = [getattr(processor, f"{kind}_token_id", None) for kind in PROCESSOR_ARGUMENTS]
    for kind in PROCESSOR_ARGUMENTS:  # of patches, rows and borders, where an image has tokens of several kinds
        found += getattr(processor, f"{kind}_token_ids", None) or []
    return {int(one) for one in found if one is not None}


def check_options(processor: ProcessorMixin, limits: MediaLimits) -> None:
    """Refuse options of image processors that the model's does not have."""
    part = getattr(processor, "image_processor", None)
    for name, option in IMAGE_OPTIONS.items():
        if getattr(limits, name) and not hasattr(part, option):
            raise DataError(f"{name} is true, and {type(part).__name__} has no such option. Set {name}: false.")


def stored_media(seen: str) -> tuple[str, list[Medium]]:
    """Text and media of an example, from the JSON of its column `seen`."""
    try:
        text, found = json.loads(seen)
        return str(text), [Medium(*one) for one in found]
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            "The prepared data is damaged: the media of an example cannot be read. Set overwrite_cache: true to "
            "prepare it again."
        ) from None


def process(
    processor: ProcessorMixin,
    texts: list[str],
    media: Sequence[Sequence[Medium]],
    limits: MediaLimits,
    **options: object,
) -> dict[str, Any]:
    """Run a processor on texts and their media. Each of its many types of errors becomes a `BadExample`.

    `input_ids` are lists, or tensors `[batch, seq]` with `return_tensors="pt"`.
    """
    has_video = any(one.kind == "video" for group in media for one in group)
    if len(texts) > 1 and has_video and type(processor).__name__ in VIDEOS_OF_ONE_LENGTH:
        pairs = zip(texts, media, strict=True)
        return _joined([process(processor, [text], [group], limits, **options) for text, group in pairs])
    given: dict[str, object] = {}
    images = [[open_image(one, limits) for one in group if one.kind == "image"] for group in media]
    videos = [[open_video(one, limits) for one in group if one.kind == "video"] for group in media]
    rate = _audio_rate(processor, limits) if any(one.kind == "audio" for group in media for one in group) else 0
    audio = [open_audio(one, rate) for group in media for one in group if one.kind == "audio"]
    if any(images):
        nested = all(images) and type(processor).__name__ not in FLAT_IMAGES
        given["images"] = images if nested else [one for group in images for one in group]
        given["images_kwargs"] = {
            option: getattr(limits, name)
            for name, option in IMAGE_OPTIONS.items()
            if hasattr(getattr(processor, "image_processor", None), option)
            and type(processor).__name__ not in OWN_CROPS
        }
    if any(videos):
        shown = [one for group in videos for one in group]
        given["videos"] = [frames for frames, _ in shown]
        given["videos_kwargs"] = {"video_metadata": [told for _, told in shown], "do_sample_frames": False}
    if audio:
        given["audio"] = audio
        given["audio_kwargs"] = {"sampling_rate": rate}
    try:
        if type(processor).__name__ in PREFIX_ATTENTION:
            made = _with_repeated_placeholders(processor, texts, images, options)
        else:
            whole = {AS_TEXT: True} if AS_TEXT in _own_options(processor) else {}
            made = processor(text=texts, **given, **whole, add_special_tokens=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - of any type, also a division by zero for an image of one pixel
        raise BadExample(f"the model's processor cannot process it: {reason(error)}") from None
    return {name: value for name, value in dict(made).items() if name not in NOT_INPUTS}


def _joined(apart: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batch of texts that were processed one by one: padded with 0 on the right, with the tensors of all media."""
    from torch import cat
    from torch.nn.utils.rnn import pad_sequence

    return {
        name: pad_sequence([one[name][0] for one in apart], batch_first=True)
        if name in OF_TEXT
        else cat([one[name] for one in apart])
        for name in apart[0]
    }


def _check_kinds(processor: ProcessorMixin, kinds: set[str], limits: MediaLimits) -> None:
    """Refuse kinds of media that the model has no encoder for, or that its processor cannot be run on."""
    name = type(processor).__name__
    for kind in sorted(kinds):
        if why := UNUSABLE.get((name, kind)):
            raise DataError(
                f"The data has {kind} data, and {name} {why}, so that LLF cannot tell the tokens of an answer. Choose "
                f"another model, such as {USABLE[kind]}."
            )
    for kind in sorted(kinds & set(limits.not_encoded)):
        raise BadExample(f"the model has no encoder for {kind} data: its config.json describes none")


def _own_options(processor: ProcessorMixin) -> frozenset[str]:
    """Names of the options of a type of processor besides the common ones."""
    kinds = getattr(type(processor), "valid_processor_kwargs", None)
    return frozenset(getattr(kinds, "__annotations__", {}))


def _audio_rate(processor: ProcessorMixin, limits: MediaLimits) -> int:
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    expected = getattr(extractor, "sampling_rate", None)
    if not expected:
        raise BadExample("the model takes no audio")
    if limits.audio_sampling_rate not in {None, expected}:
        raise DataError(
            f"audio_sampling_rate is {limits.audio_sampling_rate}, and the model's feature extractor expects "
            f"{expected} Hz. Remove the key: audio is resampled to what the model expects."
        )
    return int(expected)


def _with_repeated_placeholders(
    processor: Any, texts: list[str], images: list[list[Image]], options: Mapping[str, object]
) -> dict[str, Any]:
    """Run image processor and tokenizer apart: PaliGemma's processor adds a start and a line break around prompts."""
    sign = str(processor.image_token)
    repeated = [text.replace(sign, sign * int(processor.image_seq_length)) for text in texts]
    of_text: Any = dict(options)
    made = dict(processor.tokenizer(repeated, add_special_tokens=False, **of_text.pop("text_kwargs", {}), **of_text))
    shown = [one for group in images for one in group]
    if sum(text.count(sign) for text in texts) != len(shown):
        raise ValueError(f"its text has another number of {sign} than it has images")
    return made | dict(processor.image_processor(shown, return_tensors="pt"))


def _listed(value: object) -> list[object]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _medium(kind: str, value: object, folder: Path) -> Medium:
    if isinstance(value, dict):  # as stored by the feature `Image` of `datasets`
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
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
