"""Facts about chat templates: their ends of a turn, and what published ones render, by the hash of their text.

GLM-4.5 opens the next turn with `<|user|>`, Apertus closes a response with `<|assistant_end|>` in front of it, and Hy3
with its EOS token; after the last response none of them writes anything. These tokens end generation, so a response has
to end with them in training too. TRL 1.16.0 does the same for GLM-4.5 (`chat_templates/glm4moe_training.jinja`).

`template_page` measures the facts in `config/template_facts.toml` and writes `docs/chat_templates.md`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.config.chat_templates import FILE, template_names
from llf_core.config.did_you_mean import listed
from llf_core.config.new_tokens import requested_tokens
from llf_core.data.conversation import ANSWER
from llf_core.data.errors import BadExample
from llf_core.data.templates import named_template
from llf_core.untrusted import MODEL_SETTINGS_BYTES, UnreadableError, read_bytes, read_object_or_empty, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from llf_core.config import RunConfig
    from llf_core.data.conversation import Message

    Render = Callable[[Sequence[Message], Sequence[Mapping[str, object]] | None], str]

FUNCTION = "find"
CALL = {"id": "call00001", "type": "function", "function": {"name": FUNCTION, "arguments": {"place": "x"}}}

TOOL = {
    "type": "function",
    "function": {
        "name": FUNCTION,
        "description": "Finds a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "A place."}}},
    },
}
ASKED: Message = {"role": "user", "content": "Question"}
REPLIED: Message = {"role": ANSWER, "content": "Reply"}
CALLED: Message = {"role": ANSWER, "content": "", "tool_calls": [CALL]}
RETURNED: Message = {"role": "tool", "content": "Result", "name": FUNCTION, "tool_call_id": CALL["id"]}


class TurnEnds(NamedTuple):
    """Tokens to add to a response in words (`reply`) or with calls (`call`) that the template leaves without an end."""

    reply: str = ""
    call: str = ""

    def after(self, message: Message) -> str:
        """The token after a message of the assistant, which rendering appends."""
        return self.call if message.get("tool_calls") else self.reply


NOTHING = TurnEnds()


def find_turn_ends(render: Render, tokenizer: PreTrainedTokenizerBase) -> TurnEnds:
    """Find the tokens with which a tokenizer's own template continues after a response that it leaves without an end.

    A token counts only if the model's own files list it as a stop token.
    """
    stops = _generation_stops(tokenizer)
    return TurnEnds(
        next_token(render, stops),
        next_token(render, stops, (ASKED, CALLED, RETURNED), (TOOL,)),
    )


def next_token(
    render: Render,
    tokens: Sequence[str],
    messages: Sequence[Message] = (ASKED, REPLIED, ASKED),
    tools: Sequence[Mapping[str, object]] | None = None,
) -> str:
    """Find the token that a template writes directly after a response once the next turn follows.

    Empty if none of `tokens` follows, the response ends with one of them, or the template rewrites it or cannot render
    the conversation.
    """
    for given in (list(messages), [one | {"parts": [{"type": "text", "text": one["content"]}]} for one in messages]):
        try:
            text, longer = (render(part, tools) for part in (given[:-1], given))
        except BadExample:
            continue
        if not longer.startswith(text) or text.rstrip().endswith(tuple(tokens)):
            return ""
        return max((one for one in tokens if longer.startswith(one, len(text))), key=len, default="")
    return ""


def _generation_stops(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens at which generation ends: the EOS token, and those of the model's files in the tokenizer's folder.

    As in transformers, `generation_config.json` counts, or `config.json` where it has none.
    """
    folder = Path(tokenizer.name_or_path or os.devnull)
    ids: list[object] = []
    for name in ("generation_config.json", "config.json"):
        # The cache of a hub has links.
        path = Path(os.path.realpath(folder / name))
        settings = read_object_or_empty(path, MODEL_SETTINGS_BYTES) if folder.is_dir() else {}
        asked = settings.get("eos_token_id")
        ids = asked if isinstance(asked, list) else [] if asked is None else [asked]
        if ids:
            break
    known = [one for one in ids if isinstance(one, int) and 0 <= one < len(tokenizer)]
    found = {str(one) for one in tokenizer.convert_ids_to_tokens(known)} | {tokenizer.eos_token}
    return tuple(sorted(str(one) for one in found if one))


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


FACTS = FILE.with_name("template_facts.toml")


def sha256(jinja: str) -> str:
    """SHA-256 (hexadecimal) of a template's text without whitespace at its ends."""
    return hashlib.sha256(jinja.strip().encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class TemplateFacts:
    """Properties of a published chat template.

    Attributes:
        sha256: SHA-256 of its text in UTF-8, without whitespace at its ends.
        stop: token that ends a response within the loss, `eos_token` for the tokenizer's own; empty if there is none.
        rewrites: kinds of conversations whose earlier turns it rewrites.
        dropped: fields that it never renders.
        fails: fields and kinds of conversations for which it raises an error.
        object_arguments: whether arguments of calls may be objects; None if it renders no calls.
        next_turn: token that it writes after a response only once the next turn follows; empty if it has a `stop`.
        models: patterns of hub ids of models that have it, and for which LLaMA-Factory's named template differs.
    """

    family: str
    source: str
    sha256: str
    stop: str
    rewrites: tuple[str, ...]
    dropped: tuple[str, ...]
    fails: tuple[str, ...]
    object_arguments: bool | None
    date: bool
    next_turn: str = ""
    models: tuple[str, ...] = ()
    note: str = ""


@cache
def known_templates() -> dict[str, TemplateFacts]:
    """Facts of each template by its name in the table, with which a tokenizer's own is recognized. Read once."""
    with FACTS.open("rb") as file:
        return {name: _facts(entry) for name, entry in tomllib.load(file).items()}


def _facts(entry: dict[str, Any]) -> TemplateFacts:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return TemplateFacts(**({"object_arguments": None} | values))


def find_template(jinja: str) -> TemplateFacts | None:
    """Find a published template by its text; None for a changed or unknown one."""
    digest = sha256(jinja)
    return next((one for one in known_templates().values() if one.sha256 == digest), None)


def own_template_of(model: str) -> TemplateFacts | None:
    """Find the chat template of a model (hub id, in any case) for which LLaMA-Factory's named template differs."""
    name = model.lower()
    return next(
        (one for one in known_templates().values() if any(fnmatchcase(name, each.lower()) for each in one.models)), None
    )
