"""The tokens that a config adds to the vocabulary of its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.chat_templates import entries
from llf_core.config.paths import expanded
from llf_core.untrusted import NotPlainError, UnreadableError, read_text
from llf_core.untrusted.plain_yaml import yaml_value

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues

FILE_KEY = "new_special_tokens_config"
TRAINS_ROWS = frozenset({"LORA", "ADALORA"})
"""Adapters beside which PEFT trains single rows of the embedding (`trainable_token_indices`)."""
MOST_TOKENS = 65_536
"""Maximum number of new tokens."""
MOST_CHARACTERS = 256
"""Maximum characters of a new token, which the tokenizer looks for in each text."""
SHOWN = 40


@dataclass(frozen=True)
class NewToken:
    """A token that a config adds.

    Attributes:
        special: left out of decoded answers.
        description: the token's embedding is initialized to the mean of this text's embeddings, unless empty.
    """

    text: str
    special: bool = False
    description: str = ""


def requested_tokens(config: ConfigValues) -> tuple[NewToken, ...]:
    """The tokens that a config asks for, each once, whether or not its tokenizer has them already.

    In LLaMA-Factory's order: `add_tokens`, then the special ones, then with `resize_vocab` those that end an answer in
    a named template.
    """
    model = config.model
    asked = listed_tokens(config)
    if model.new_special_tokens_config:
        asked += descriptions(model.new_special_tokens_config)
    if model.resize_vocab and config.data.template is not None:
        template = entries()[config.data.template]
        ends = [template.get("end", "eos_token"), *template.get("stop", ())]
        asked += [NewToken(text, special=True) for text in ends if text != "eos_token"]
    return _once(asked)


def listed_tokens(config: ConfigValues) -> list[NewToken]:
    """The tokens that a config names itself, without those of a file.

    Raises:
        ValueError: a token is empty or too long, or there are too many; the message is a sentence.
    """
    model = config.model
    asked = [NewToken(text) for text in model.add_tokens or ()]
    asked += [NewToken(text, special=True) for text in model.add_special_tokens or ()]
    return list(_once(asked))


def _once(asked: list[NewToken]) -> tuple[NewToken, ...]:
    """The tokens without repetitions, checked; of two with one text, the later."""
    for token in asked:
        if why := _unusable(token.text):
            raise ValueError(why)
    found = tuple({token.text: token for token in asked}.values())
    if len(found) > MOST_TOKENS:
        raise ValueError(f"{len(found):,} tokens would be added. Expected at most {MOST_TOKENS:,}.")
    return found


def descriptions(path: str) -> list[NewToken]:
    """Read the special tokens of a YAML file, each with the text that describes it.

    Raises:
        ValueError: it cannot be read, or does not map tokens to texts; the message is a sentence.
    """
    expected = (
        "Expected a YAML file that maps each token to its description, such as <think>: the model begins to reason."
    )
    try:
        content = yaml_value(read_text(expanded(path)))
    except FileNotFoundError:
        raise ValueError(f"{FILE_KEY}: there is no file {path}. {expected}") from None
    except (UnreadableError, NotPlainError) as error:
        raise ValueError(f"{FILE_KEY}: {Path(path).name} cannot be read ({error}) {expected}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{FILE_KEY}: {Path(path).name} is no mapping. {expected}")
    for token, text in content.items():
        if not isinstance(token, str) or not isinstance(text, str) or not text.strip():
            raise ValueError(f"{FILE_KEY}: {Path(path).name} describes {_short(token)} by {_short(text)}. {expected}")
    return [NewToken(token, special=True, description=text) for token, text in content.items()]


def adds_tokens(config: ConfigValues) -> bool:
    """Whether a config has a key that can add tokens; none may be new to its tokenizer."""
    model = config.model
    return bool(model.resize_vocab or model.add_tokens or model.add_special_tokens or model.new_special_tokens_config)


def _unusable(text: str) -> str:
    """Why a token cannot be added; empty if it can."""
    if not text.strip():
        return f"A new token is {text!r}, which is empty or white space. Expected text such as <think>."
    if len(text) > MOST_CHARACTERS:
        return f"The new token {_short(text)} has {len(text):,} characters. Expected at most {MOST_CHARACTERS}."
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
