"""Whether a tokenizer has the token with which a named chat template ends responses, also without loading it."""

from __future__ import annotations

import functools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.chat_templates import template_names
from llf_core.config.did_you_mean import listed
from llf_core.config.new_tokens import requested_tokens
from llf_core.data.templates import named_template
from llf_core.untrusted import MODEL_SETTINGS_BYTES, UnreadableError, read_bytes, read_object_or_empty, read_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config import RunConfig


FAST = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
FILES = (FAST, SETTINGS, "special_tokens_map.json", "added_tokens.json")
MAX_TOKENIZER_BYTES = 256 << 20
"""Maximum size of such a file; that of Gemma 3, with 262,144 tokens, has 33 MB."""
OWN_END = "eos_token"
NO_CHAT_TEMPLATE = (
    "The tokenizer has no chat template (a base model?). Set template, e.g. template: default for a base model, or use "
    "the instruct version of the model."
)
State = tuple[tuple[Path, int, int], ...]
"""Path, modification time and size of files, to invalidate a cached answer."""


def why_never_ends(name: str, end: str, knows: Callable[[str], bool]) -> str:
    """Why a model would never learn to stop with a named template: `end` is not a token. Empty if it is one."""
    if knows(end):
        return ""
    fitting = sorted((one for one in template_names() if _fits(one, knows)), key=_made_of_text)
    return (
        f"The template {name} ends responses with {end}, which is not a token of this tokenizer: the model would never "
        f"learn to stop. Matching templates: {listed(fitting)}. Or set resize_vocab: true, which adds this token."
    )


def why_never_ends_here(config: RunConfig, folder: Path) -> str:
    """`why_never_ends` without loading the tokenizer, from the texts of its files.

    A token that occurs in none of them as a JSON string is not one of the tokenizer; one that occurs may still be
    another word of the files, which the trainer finds. Also empty without `tokenizer.json`, or where an adapter, the
    Python code of the model or a tokenizer in Python can add tokens.
    """
    name, model = config.data.template, config.model
    end = OWN_END if name is None else named_template(name).end
    if name is None or end == OWN_END or model.adapter_name_or_path or not model.use_fast_tokenizer:
        return ""
    with suppress(ValueError, OSError):  # a file of new tokens that cannot be read is reported beside its key
        if any(token.text == end for token in requested_tokens(config)):
            return ""
    files = [Path(os.path.realpath(folder / file)) for file in FILES]  # the cache of a hub has links
    if not files[0].is_file() or read_object_or_empty(files[1], MAX_TOKENIZER_BYTES).get("auto_map"):
        return ""
    stats = ((file, file.stat()) for file in files if file.is_file())
    return _never_ends(name, tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats))


@functools.lru_cache(maxsize=8)
def _never_ends(name: str, state: State) -> str:
    """Cached until a file changes."""
    try:
        text = b"".join(read_bytes(file, MAX_TOKENIZER_BYTES) for file, _, _ in state)
    except (UnreadableError, FileNotFoundError):
        return ""  # the loader says why
    end = named_template(name).end
    if any(form in text for form in _forms(end)):
        return ""
    words = frozenset(text.split(b'"'))
    return why_never_ends(name, end, lambda token: not words.isdisjoint(_forms(token)))


def _forms(token: str) -> tuple[bytes, bytes]:
    """A token between the quotes of a JSON string, as it is and with escapes."""
    raw, escaped = (json.dumps(token, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (False, True))
    return raw, escaped


def _fits(name: str, knows: Callable[[str], bool]) -> bool:
    named = named_template(name)
    ends = set() if named.end == OWN_END else {named.end}
    return all(map(knows, named.tokens | ends))


def _made_of_text(name: str) -> bool:
    return not named_template(name).tokens


def own_template_text(folder: Path) -> str | None:
    """Read the text of a model's own chat template, of several the one named `default`; None if there is none."""

    def real(name: str) -> Path:
        return Path(os.path.realpath(folder / name))  # the cache of a hub has links

    with suppress(UnreadableError, FileNotFoundError):
        return read_text(real("chat_template.jinja"), MODEL_SETTINGS_BYTES)
    for name in ("chat_template.json", "tokenizer_config.json"):
        written = read_object_or_empty(real(name), MODEL_SETTINGS_BYTES).get("chat_template")
        if isinstance(written, list):
            named = (one for one in written if isinstance(one, dict) and one.get("name") == "default")
            written = next(named, {}).get("template")
        if isinstance(written, str):
            return written
    return None
