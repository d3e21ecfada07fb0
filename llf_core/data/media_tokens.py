"""Counts tokens and patches of an image, video or audio clip, from the files of a model, without loading it.

`media_tokens.toml` has the rule of each processor, and the text that it writes around a medium.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.name_checks.model_folder import folder_of
from llf_core.data.media_files import MediaLimits
from llf_core.data.media_rules import OF_ANOTHER_KIND, RULES, MediaSettings
from llf_core.data.template_facts import FAST, MAX_TOKENIZER_BYTES, own_template_text
from llf_core.untrusted import MODEL_SETTINGS_BYTES, UnreadableError, read_bytes, read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import RunConfig
    from llf_core.data.media_files import Header

FILE = Path(__file__).with_name("media_tokens.toml")
SETTINGS = (
    "config.json", "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "tokenizer_config.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""Files of a model with settings of its processor, and its chat template."""
PIECE = re.compile(r"<[^\s<>]+>| ?[^\W\d_]+|\d|\n+| +|[^\w\s]|_")
"""Approximate tokens of a text: a name in angle brackets, a word with its space, a digit, a sign."""
LINES = re.compile(r"\n\n+")


class MediumCount(NamedTuple):
    """Cost of a medium.

    Attributes:
        tokens: in the text, with what the processor and the template write around it.
        positions: patches of the image encoder; 0 for audio.
    """

    tokens: int
    positions: int


@dataclass(frozen=True)
class MediaTokens:
    """Counts the tokens of media for a model.

    Attributes:
        entry: row of the table; empty for a model that takes no media.
        template: text of the model's own chat template.
    """

    settings: MediaSettings
    entry: Mapping[str, Any]
    template: str | None
    folder: Path

    @property
    def processor(self) -> str:
        """Name of the processor's class; empty for one that the table does not have."""
        return str(self.entry.get("name", ""))

    def takes(self, kind: str) -> bool:
        """Whether there is a rule for `image`, `video` or `audio`, and the model has an encoder for it."""
        return kind in self.entry and kind not in self.settings.limits.not_encoded

    def count(self, kind: str, header: Header) -> MediumCount | None:
        """Count the tokens and patches of a medium by the rules of its processor; None if they do not apply.

        For a processor that the table does not have, the settings of its files give an estimate. In the text around a
        medium, each word and digit counts as one token.
        """
        if not self.takes(kind):
            return None
        row = self.entry[kind]
        try:
            found = RULES[row["rule"]](self.settings, row, header)
        except OF_ANOTHER_KIND:
            return None
        sign = self.entry.get("signs", {}).get(kind, "")
        text = found.text + (surrounding(self.template, sign) if self.template and sign else "")
        return MediumCount(found.tokens + self._text_tokens(text), found.positions)

    def _text_tokens(self, text: str) -> int:
        found = len(PIECE.findall(text))
        lines = LINES.findall(text)
        return found if not lines or self._merges_lines else found + sum(len(one) - 1 for one in lines)

    @functools.cached_property
    def _merges_lines(self) -> bool:
        """Whether the tokenizer has a token for two line breaks, as most have."""
        file = Path(os.path.realpath(self.folder / FAST))  # the cache of a hub has links
        try:
            stat = file.stat()
        except OSError:
            return True
        return _has_line_pair(file, stat.st_mtime_ns, stat.st_size)


def media_tokens(config: RunConfig) -> MediaTokens | None:
    """Settings of a config's model that determine the tokens of its media; None if it is not local."""
    folder = folder_of(config.model.model_name_or_path, config.model.cache_dir)
    if folder is None:
        return None
    files = [Path(os.path.realpath(folder / name)) for name in SETTINGS]  # the cache of a hub has links
    stats = ((file, file.stat()) for file in files if file.is_file())
    state = tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats)
    parts, entry, template = _read(folder, state)
    return MediaTokens(MediaSettings(MediaLimits.of(config), parts), entry, template, folder)


def surrounding(template: str, sign: str) -> str:
    """Text that a chat template writes directly around a medium's placeholder, such as `<|vision_start|>`.

    It is read from the source of the template, without running it: up to the next expression, statement or quote, with
    the options `trim_blocks` and `lstrip_blocks` of transformers' templates.
    """
    found = re.search("[^{}%'\"]*" + re.escape(sign) + "[^{}%'\"]*", template)
    if found is None:
        return ""
    text, before, after = found.group(), template[: found.start()], template[found.end() :]
    if before.endswith(("'", '"')):
        return text.replace("\\n", "\n").replace(sign, "")
    if before.endswith(("-%}", "-}}")):
        text = text.lstrip()
    elif before.endswith("%}"):
        text = text.removeprefix("\n")
    if after.startswith(("{%-", "{{-")):
        text = text.rstrip()
    elif after.startswith("{%"):
        text = re.sub(r"\n[ \t]+$", "\n", text)
    return text.replace(sign, "")


@functools.cache
def _table() -> dict[str, Any]:
    with FILE.open("rb") as file:
        return tomllib.load(file)


@functools.lru_cache(maxsize=8)
def _read(
    folder: Path,
    state: tuple[tuple[Path, int, int], ...],  # noqa: ARG001 - of the cache
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Any], str | None]:
    """Settings by part, row of the table and chat template; read again only when a file has changed."""
    names = ("config.json", "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    model, processor, older, video = (_settings(folder, name) for name in names)
    parts = {
        "processor": processor,
        "image": older | _object(processor, "image_processor"),
        "video": (video or older) | _object(processor, "video_processor"),
        "audio": older | _object(processor, "feature_extractor"),
        "model": model,
        "vision": _object(model, "vision_config"),
    }
    name = processor.get("processor_class") or older.get("processor_class")
    name = name or _settings(folder, "tokenizer_config.json").get("processor_class") or ""
    return parts, _entry(str(name), str(model.get("model_type")), parts), own_template_text(folder)


def _settings(folder: Path, name: str) -> dict[str, Any]:
    return read_object_or_empty(Path(os.path.realpath(folder / name)), MODEL_SETTINGS_BYTES)


def _entry(name: str, kind: str, parts: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Row of a processor by its name, or by the model type where the files do not name it."""
    rows: Sequence[Mapping[str, Any]] = _table()["processors"]
    known = next((row for row in rows if row["name"] == name), None) if name else None
    known = known or next((row for row in rows if not name and kind in row["types"]), None)
    if known is not None:
        return known
    if not isinstance(parts["model"].get("vision_config"), dict):
        return {}
    return next(row for row in _table()["others"] if _has(parts, row["has"]))


def _has(parts: Mapping[str, Mapping[str, Any]], path: str) -> bool:
    part, name = path.split(".")
    return parts[part].get(name) is not None


def _object(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, dict) else {}


@functools.lru_cache(maxsize=8)
def _has_line_pair(file: Path, changed: int, size: int) -> bool:  # noqa: ARG001 - of the cache
    try:
        text = read_bytes(file, MAX_TOKENIZER_BYTES)
    except (UnreadableError, FileNotFoundError):
        return True
    return any(one.encode() in text for one in ('"\\n\\n"', '"ĊĊ"', '"\\u010a\\u010a"'))
