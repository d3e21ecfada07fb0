"""Limits on the `tokenizers` library with untrusted files: panics become exceptions, and text growth is bounded.

The library is written in Rust. Its panics are no subclass of `Exception`, and its computations cannot be interrupted,
so the growth that a `tokenizer.json` allows is computed before any text is tokenized.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError, first_line
from llf_core.models.model_folder import REDOWNLOAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

PANIC = "PanicException"
MAX_GROWTH = 256
"""Maximum growth factor of a normalizer or decoder: eight one-character replacements in a row."""
MAX_ADDED_LENGTH = 1000
"""Characters that a normalizer or decoder may add to a text."""
PROBE_TEXTS = ("a", "Hello, world 1", "\u00e4 \u4f60\u597d \U0001f642")
"""Texts that every tokenizer must accept: ASCII, a script without spaces, and characters beyond 16 bits."""


class PanicError(RuntimeError):
    """A panic of a library written in Rust."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Context manager that turns Rust panics into `PanicError`, which is an `Exception`.

    A panic is a `BaseException`, which would pass every handler of errors and end the process.

    Raises:
        PanicError: the library has panicked.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise PanicError(first_line(error)) from error


def is_tokenizer_error(error: Exception) -> bool:
    """Whether an exception comes from the tokenizers library, which raises plain `Exception`, or panics.

    Handlers need it to tell a damaged tokenizer from a programming error, since `except Exception` would catch both.

    Args:
        error: an exception from a call of the library, inside `panics_as_errors`.
    """
    return type(error) is Exception or isinstance(error, PanicError)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that lets texts grow beyond `MAX_GROWTH` or `MAX_ADDED_LENGTH`, or fails on `PROBE_TEXTS`.

    Either would end or exhaust the process in the middle of a preparation, where it cannot be interrupted.

    Args:
        tokenizer: as loaded; slow tokenizers, written in Python, are not checked.
        name: name of the model, for the message.

    Raises:
        ModelError: names the part of the tokenizer and the growth factor or the failure.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    for part in ("normalizer", "decoder"):
        state = getattr(backend, part)
        times, added = (1.0, 0) if state is None else _growth_bound(json.loads(state.__getstate__()))
        if times > MAX_GROWTH or added > MAX_ADDED_LENGTH:
            raise ModelError(
                f"The tokenizer of {name} was rejected: its {part} makes a text up to {times:,.0f} times as long and "
                f"adds {added:,} characters. Expected at most {MAX_GROWTH} times and {MAX_ADDED_LENGTH:,} characters. "
                f"{REDOWNLOAD}"
            )
    try:
        with panics_as_errors():
            for text in PROBE_TEXTS:
                backend.encode(text, add_special_tokens=False)
    except Exception as error:
        if not is_tokenizer_error(error):
            raise
        raise ModelError(
            f"The tokenizer of {name} cannot encode every text: {first_line(error)} Expected one that has a token for "
            f"unknown text. {REDOWNLOAD}"
        ) from error


def _growth_bound(part: dict[str, Any]) -> tuple[float, int]:
    """Upper bound of the growth of a text by a normalizer or decoder, computed since its work cannot be interrupted.

    In a sequence the factors multiply, and each component makes the text added before it grow too.

    Args:
        part: the component's entry in `tokenizer.json`.

    Returns:
        Growth factor, and number of added characters.

    Raises:
        AttributeError, TypeError: the entry is not an object, or a part of it is of another type than it should be.
        RecursionError: sequences are nested too deeply.
    """
    kind = part.get("type")
    if kind == "Sequence":
        times, added = 1.0, 0
        for inner in part.get("normalizers") or part.get("decoders") or ():
            more, longer = _growth_bound(inner)
            times, added = times * more, int(added * more) + longer
        return times, added
    if kind == "Prepend":
        return 1.0, len(part.get("prepend") or "")
    if kind == "Replace":
        pattern, content = part.get("pattern") or {}, len(part.get("content") or "")
        shortest = len(pattern.get("String") or "") if isinstance(pattern, dict) else 0
        # A regular expression may match one character.
        return max(1.0, content / shortest if shortest else float(content)), 0
    return 1.0, 0
