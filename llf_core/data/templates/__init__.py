"""Named chat templates: Jinja sources built by `turns.jinja` from the entries of `config/chat_templates.toml`.

The source uses the variables of a tokenizer's own template: `messages`, `tools`, `add_generation_prompt`,
`enable_thinking`, `preserve_thinking`, and the special tokens.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.chat_templates import entries, template_names
from llf_core.config.did_you_mean import did_you_mean, listed
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

    from llf_core.data.conversation import Message

FOLDER = Path(__file__).parent
BOUNDARY, ANSWER_START, ANSWER_END = "\ue001", "\ue002", "\ue003"
"""Markers (private use) in the output of `NamedTemplate.marked`: tokenization boundary, start and end of an answer."""
TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
PLAIN: dict[str, Any] = {
    "default": "", "prefix": "", "system": "{content}", "fused": False, "user": "{content}", "open": "",
    "said": "{content}{eos}", "once": False, "between": "", "end": "eos_token", "stop": (), "tools": "default",
    "think": (), "bare": "",
}  # fmt: skip


@dataclass(frozen=True)
class NamedTemplate:
    """A template that ships with LLF, by its name in LLaMA-Factory.

    Attributes:
        end: token that ends an answer; `eos_token` for the tokenizer's own.
        stop: further stop tokens of generation.
        thinks: whether answers begin with reasoning, which is left out once later questions follow.
        tokens: special tokens that it writes (`<|user|>`).
    """

    name: str
    label: str
    end: str
    stop: tuple[str, ...]
    thinks: bool
    tokens: frozenset[str]

    def jinja(self, *, space: bool = False, tools: str | None = None) -> str:
        """Jinja source that is saved with a model, so that servers render chats as training did.

        Args:
            space: whether the tokenizer adds a space before the first word of a text.
            tools: tool format; None for the template's own.
        """
        return _made(self.name, tools, marked=False, space=space)

    def marked(self, *, tools: str | None = None) -> str:
        """Jinja source that renders the same text, with markers for answers and tokenization boundaries."""
        return _made(self.name, tools, marked=True, space=False)


CONTENT = "\0"


@dataclass(frozen=True)
class FastRenderer:
    """Renders conversations without tools and reasoning like `NamedTemplate.marked`, without Jinja.

    Attributes:
        prefix: start of the text. In it and all slots, a null character is the placeholder of the content.
        fused: whether the system prompt is part of the first question.
        default: system prompt of conversations without one.
        said: slot of an answer, with its header and markers.
    """

    prefix: str
    system: str
    fused: bool
    default: str
    user: str
    said: str
    last: str
    between: str

    @classmethod
    def of(cls, name: str, tokens: Mapping[str, str]) -> FastRenderer | None:
        """Create the renderer of a template; None for a template of reasoning models, which needs Jinja."""
        entry: dict[str, Any] = PLAIN | entries()[name]
        if entry["think"]:
            return None
        eos = BOUNDARY + tokens.get("eos_token", "")

        def slot(name: str) -> str:
            text = str(entry[name]).replace("{content}", CONTENT).replace("{space}", "")
            for token in ("bos", "eos"):
                text = text.replace(f"{{{token}}}", f"{BOUNDARY}{tokens.get(f'{token}_token', '')}{BOUNDARY}")
            return text

        return cls(
            prefix=f"{slot('prefix')}{BOUNDARY}" if entry["prefix"] else "",
            system=slot("system"),
            fused=entry["fused"],
            default=entry["default"],
            user=slot("user"),
            said=f"{slot('open')}{ANSWER_START}{slot('said')}",
            last=(eos if entry["once"] else "") + ANSWER_END,
            between=(entry["between"] if entry["once"] else "") + ANSWER_END,
        )

    def render(self, messages: Sequence[Message]) -> str | None:
        """Render a conversation that ends with an answer, with markers; None for one with calls or their results."""
        system, turns = self.default, messages
        if messages[0]["role"] == "system":
            system, turns = messages[0]["content"], messages[1:]
        if system:
            system = self.system.replace(CONTENT, system)
        parts = [self.prefix]
        if not self.fused:
            parts += [system, BOUNDARY] if system else []
            system = ""
        for message in turns:
            if message["role"] == "user":
                parts.append(self.user.replace(CONTENT, system + message["content"]))
            elif message["role"] == "assistant" and not message.get("tool_calls"):
                parts += [self.said.replace(CONTENT, message["content"]), self.between]
            else:
                return None
            system = ""
        parts[-1] = self.last
        return "".join(parts)


@cache
def named_template(name: str) -> NamedTemplate:
    """Read a template that ships with LLF, by its name in LLaMA-Factory."""
    if name not in entries():
        choices = f"Available: {listed(template_names())}; remove template to use that of the model."
        raise DataError(f"Unknown template {name!r}.{did_you_mean(name, template_names())} {choices}")
    entry = PLAIN | entries()[name]
    text = "".join(entry[slot] for slot in ("prefix", "system", "user", "open", "said"))
    return NamedTemplate(
        name=name,
        label=entry["label"],
        end=entry["end"],
        stop=tuple(entry["stop"]),
        thinks=bool(entry["think"]),
        tokens=frozenset(TOKEN.findall(text)),
    )


@cache
def _made(name: str, tools: str | None, *, marked: bool, space: bool) -> str:
    entry: dict[str, Any] = PLAIN | entries()[name]
    joint, begins, ends = (_literal(sign) if marked else "" for sign in (BOUNDARY, ANSWER_START, ANSWER_END))

    def written(slot: str, content: str = "content") -> str:
        items = []
        for part in re.split(r"(\{(?:content|bos|eos|space)\})", slot):
            if part == "{content}":
                items.append(content)
            elif part in {"{bos}", "{eos}"}:
                items += [joint, f"{part[1:-1]}_token", joint]
            elif part == "{space}":
                items.append(_literal(" ") if space else "")
            elif part:
                items.append(_literal(part))
        return _all(*items)

    before, after = entry.get("result", entry["user"]).split("{content}")
    think = entry["think"]
    text = _maker().render(
        entry,
        name=name,
        macros=(FOLDER / "tools" / f"{tools or entry['tools']}.jinja").read_text(encoding="utf-8").strip(),
        calls=entry.get("calls", entry["said"]),
        before=before,
        after=after,
        join=entry.get("join", after + before),
        empty=entry.get("empty", "".join(think)),
        opens=think[0].strip() if think else "",
        closes=think[1].strip() if think else "",
        marked=marked,
        joint=joint,
        begins=begins,
        ends=ends,
        literal=_literal,
        written=written,
        all=_all,
    )
    return re.sub(r"\n+", "\n", text).strip()


@cache
def _maker() -> Template:
    from jinja2 import Environment

    environment = Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - it makes Jinja, not HTML
    )
    return environment.from_string((FOLDER / "turns.jinja").read_text(encoding="utf-8"))


def render(jinja: str, variables: dict[str, object]) -> str:
    """Render a trusted Jinja source. Untrusted sources go through transformers' sandbox, which is slower."""
    template, known = _compiled(jinja)
    # `Template.render` would copy the environment's globals each time, which takes longer than rendering.
    return "".join(template.root_render_func(template.new_context(known | variables, shared=True)))


@cache
def _compiled(jinja: str) -> tuple[Template, dict[str, object]]:
    from jinja2 import Environment
    from jinja2.exceptions import TemplateError

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - no HTML
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(jinja)
    return template, dict(template.globals)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _all(*expressions: str) -> str:
    return " ~ ".join(one for one in expressions if one and one != "''") or "''"
