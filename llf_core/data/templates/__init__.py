"""Chat templates by name: Jinja texts made of the entries of `config/templates.toml` by `turns.jinja`.

The Jinja sees what a tokenizer's own template sees: `messages`, `tools`, `add_generation_prompt`, `enable_thinking`,
`preserve_thinking`, the special tokens.
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

FOLDER = Path(__file__).parent
JOINT, BEGINS, ENDS = "\ue001", "\ue002", "\ue003"
"""Signs (private use) in what `NamedTemplate.marked` renders: a tokenizer starts anew at each of them; an answer begins
and ends."""
TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
PLAIN: dict[str, Any] = {
    "default": "", "prefix": "", "system": "{content}", "fused": False, "user": "{content}", "open": "",
    "said": "{content}{eos}", "once": False, "between": "", "end": "eos_token", "stop": (), "tools": "default",
    "think": (), "bare": "",
}  # fmt: skip


@dataclass(frozen=True)
class NamedTemplate:
    """A template that ships with LLF.

    Attributes:
        name: LLaMA-Factory's name of it.
        label: the models that it belongs to.
        end: the token that ends an answer, or `eos_token` for the tokenizer's own.
        stop: further tokens that a generation stops at.
        thinks: whether answers begin with a thought, which is left out once later questions follow.
        tokens: what it writes that looks like tokens of its own (`<|user|>`).
    """

    name: str
    label: str
    end: str
    stop: tuple[str, ...]
    thinks: bool
    tokens: frozenset[str]

    def jinja(self, *, space: bool = False, tools: str | None = None) -> str:
        """The text that is saved with a model.

        Args:
            space: the tokenizer puts a blank before the first word of a text.
            tools: another tool format than its own.
        """
        return _made(self.name, tools, marked=False, space=space)

    def marked(self, *, tools: str | None = None) -> str:
        """The text that renders the same, with signs for where answers are and where a tokenizer starts anew."""
        return _made(self.name, tools, marked=True, space=False)


CONTENT = "\0"


@dataclass(frozen=True)
class Plain:
    """Renders conversations without functions and thoughts: the text of `NamedTemplate.marked`, ten times as fast.

    Attributes:
        prefix: in front of everything. In it and all slots, a null stands for what is said.
        system: slot of the system prompt; `fused`: it goes in front of the first question.
        default: the system prompt of conversations without one.
        user: slot of a question.
        said: slot of an answer, with what opens it and the signs.
        last: ends the last answer.
        between: ends the others.
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
    def of(cls, name: str, tokens: Mapping[str, str]) -> Plain | None:
        """The renderer of a template; None for one of thinking models.

        Args:
            name: of the template.
            tokens: the tokenizer's special tokens by name.
        """
        entry: dict[str, Any] = PLAIN | entries()[name]
        if entry["think"]:
            return None
        eos = JOINT + tokens.get("eos_token", "")

        def slot(name: str) -> str:
            text = str(entry[name]).replace("{content}", CONTENT).replace("{space}", "")
            for token in ("bos", "eos"):
                text = text.replace(f"{{{token}}}", f"{JOINT}{tokens.get(f'{token}_token', '')}{JOINT}")
            return text

        return cls(
            prefix=f"{slot('prefix')}{JOINT}" if entry["prefix"] else "",
            system=slot("system"),
            fused=entry["fused"],
            default=entry["default"],
            user=slot("user"),
            said=f"{slot('open')}{BEGINS}{slot('said')}",
            last=(eos if entry["once"] else "") + ENDS,
            between=(entry["between"] if entry["once"] else "") + ENDS,
        )

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """The text with signs; None for a conversation with functions, which Jinja renders."""
        system, turns = self.default, messages
        if messages[0]["role"] == "system":
            system, turns = messages[0]["content"], messages[1:]
        if system:
            system = self.system.replace(CONTENT, system)
        parts = [self.prefix]
        if not self.fused:
            parts += [system, JOINT] if system else []
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
    """Reads a template.

    Raises:
        DataError: there is none of that name; the nearest one is named.
    """
    if name not in entries():
        choices = f"There are {listed(template_names())}; leave template out for the model's own."
        raise DataError(f"There is no template {name!r}.{did_you_mean(name, template_names())} {choices}")
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
    joint, begins, ends = (_literal(sign) if marked else "" for sign in (JOINT, BEGINS, ENDS))

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


def render(jinja: str, variables: dict[str, Any]) -> str:
    """Renders a text of ours. Texts of others go through transformers, in its sandbox, which takes longer."""
    template, known = _compiled(jinja)
    # `Template.render` would copy the environment's names anew each time, which takes longer than all the rest.
    return "".join(template.root_render_func(template.new_context(known | variables, shared=True)))


@cache
def _compiled(jinja: str) -> tuple[Template, dict[str, Any]]:
    """A template, and the names that it knows beside its variables."""
    from jinja2 import Environment
    from jinja2.exceptions import TemplateError

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - no HTML
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(jinja)
    return template, dict(template.globals)


def _literal(text: str) -> str:
    """A text as Jinja writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _all(*expressions: str) -> str:
    """Jinja that puts expressions together."""
    return " ~ ".join(one for one in expressions if one and one != "''") or "''"
