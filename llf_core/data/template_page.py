"""`python -m llf_core.data.template_page` writes `docs/chat_templates.md`, properties of chat templates of models."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.data.chat_template import choose_template
from llf_core.data.conversation import ANSWER, REASONING_FIELDS
from llf_core.data.template_check import (
    CALLS,
    DROPPED,
    FAILS,
    RENDERED,
    REWRITTEN,
    SYSTEM,
    TOOLS,
    accepts_parts,
    template_check,
)
from llf_core.data.template_facts import ASKED, REPLIED, known_templates, next_token
from llf_core.data.templates import TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llf_core.data.chat_template import ChatTemplate
    from llf_core.data.template_facts import TemplateFacts

ROWS = {"reasoning": None, "tool_calls": CALLS, "tools": TOOLS, "system": SYSTEM}
"""Rows of the table for each template: any field with reasoning, calls, tools and the system prompt."""
BOS, EOS = "<s>", "</s>"
OTHER_TOKENS = ("[e~[",)
"""Special tokens without angle brackets: MiniMax's end of a turn."""
HEAD = """# Chat templates of published models

What the chat templates that models bring do with data, measured with sentinels
(`llf_core/data/template_check.py`, transformers' renderer, `enable_thinking: true`). A run, Inspect and `llf inspect`
make the same checks with your data and your model's template. `python -m llf_core.data.template_page` generates this
page from `llf_core/config/template_facts.toml`, which also has the SHA-256 of each text.

- **Stop**: the token that ends a response within the loss. Without one, the model does not learn to stop. *Next turn*:
  the template writes the token only once the next turn follows. LLF then adds it after each response, if the model's
  `generation_config.json` (or `config.json`, or its EOS token) says that generation ends at it.
- **Rewrites**: kinds of conversations whose earlier turns change once later turns follow, so that each response becomes
  an example of its own: all, with tools, or with reasoning.
- **Not rendered**: fields that the template drops, or for which it raises an error (then the record is dropped).
- **Objects**: whether arguments of calls may be objects. Where not, LLF writes them as JSON text.
- **Date**: whether the text depends on the day.

| family | text | stop | rewrites | not rendered | objects | date |
|---|---|---|---|---|---|---|
"""


def measure(jinja: str) -> dict[str, Any]:
    """Measure the entry of `template_facts.toml` of a template, with a tokenizer that has all its special tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, "?")),
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=sorted({*TOKEN.findall(jinja), *OTHER_TOKENS}),
    )
    tokenizer.chat_template = jinja
    template = choose_template(None, tokenizer, enable_thinking=True)
    reasoning = [(ANSWER, name) for name in REASONING_FIELDS]
    found = template_check(
        template,
        tokenizer,
        [*reasoning, CALLS, TOOLS, SYSTEM],
        as_parts=accepts_parts(template, tokenizer),
    )
    states = {(one.role, one.name): one.state for one in found.fields}
    thought = {states[one] for one in reasoning}
    rows = {
        name: states[one] if one else RENDERED if RENDERED in thought else states[reasoning[0]]
        for name, one in ROWS.items()
    }
    stop = "eos_token" if found.stop == EOS else found.stop or ""
    return {
        "stop": stop,
        "next_turn": "" if stop else _next_turn(template, tokenizer),
        "rewrites": tuple(kind for kind, state in found.prefixes.items() if state == REWRITTEN),
        "dropped": tuple(name for name, state in rows.items() if state == DROPPED),
        "fails": tuple(name for name, state in rows.items() if state == FAILS),
        "object_arguments": found.object_arguments,
        "date": found.varies_by_day,
    }


def _next_turn(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> str:
    """Token that a template writes after a response once the next turn follows."""
    written = TOKEN.findall(template.render(tokenizer, [ASKED, REPLIED, ASKED]))
    return next_token(partial(template.render, tokenizer), written).replace(EOS, "eos_token")


def page() -> str:
    """The page as Markdown, so that a test can compare it with the file."""
    return HEAD + "".join(f"| {' | '.join(_cells(one))} |\n" for one in known_templates().values())


def _cells(one: TemplateFacts) -> list[str]:
    missing = [*one.dropped, *(f"{name} (error)" for name in one.fails)]
    objects = {None: "-", True: "yes", False: "no, text"}[one.object_arguments]
    rewrites = "all" if "plain" in one.rewrites else ", ".join(one.rewrites) or "-"
    family = f"{one.family}. {one.note}" if one.note else one.family
    stop = f"`{one.stop}`" if one.stop else f"next turn: `{one.next_turn}`" if one.next_turn else "**none**"
    stop = stop.replace("|", "\\|")
    return [family, one.source, stop, rewrites, ", ".join(missing) or "-", objects, "yes" if one.date else "-"]


def main() -> int:
    """Write the page to the path given as argument, or print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="file to write; without it, the page is printed")
    file = parser.parse_args().file
    if file is None:
        sys.stdout.write(page())
    else:
        file.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
