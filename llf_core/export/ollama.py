"""Ollama's `Modelfile` of an export: the chat template as a Go template, stops and parameters.

The Go template is read off what the chat template renders around marked texts, and kept only if it renders
conversations with several turns (and tools, if the chat template has them) alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

MODELFILE = "Modelfile"
CONTEXT = 4096
"""`num_ctx` of models with a longer context, for all of which memory would be allocated."""
SYSTEM, USER, SECOND, ANSWER, RESULT = "Sq1system", "Uq1first", "Uq2second", "Aq1answer", "Rq1result"
"""Markers that no template contains."""
PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""Ollama's name of each parameter of a generation config."""


def _tool(name: str) -> dict[str, object]:
    parameters = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    return {"type": "function", "function": {"name": name, "description": "Look it up.", "parameters": parameters}}


TOOLS = [_tool("tq1look"), _tool("tq2find")]
CALL: dict[str, Any] = {"type": "function", "function": {"name": "tq1look", "arguments": {"place": "Rome"}}}


@dataclass(frozen=True)
class ToolTexts:
    """The texts around tools.

    Attributes:
        with_system: before the first tool, after each, after the last, where there is a system message; `SYSTEM` stands
            for it.
        call: before the name of a called function, between it and its arguments, and after them.
        result: before and after the result of a call; the latter begins the next answer.
    """

    with_system: tuple[str, str, str, str]
    without_system: tuple[str, str, str, str]
    call: tuple[str, str, str]
    result: tuple[str, str]


@dataclass(frozen=True)
class TurnTexts:
    """The texts of a chat template around the messages.

    Attributes:
        system: before and after a system message.
        user: before and after a user message; the latter begins the answer.
        answer: after an answer that another message follows.
        tools: None if the template has none that Ollama could write.
    """

    system: tuple[str, str]
    no_system: str
    user: tuple[str, str]
    answer: str
    tools: ToolTexts | None = None

    def render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
        """The text of a conversation that an answer follows, as the Go template renders it; tools are JSON schemas."""
        system = next((one["content"] for one in messages if one["role"] == "system"), None)
        text = self._head(system, tools or [])
        for one in messages:
            if one["role"] == "user":
                text += self.user[0] + one["content"] + self.user[1]
            elif one["role"] == "tool" and self.tools is not None:
                text += self.tools.result[0] + one["content"] + self.tools.result[1]
            elif one["role"] == "assistant":
                text += one.get("content") or ""
                text += "".join(map(self._call, one.get("tool_calls", ()))) + self.answer
        return text

    def _call(self, call: dict[str, Any]) -> str:
        if self.tools is None:
            return ""
        before, between, after = self.tools.call
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        return f"{before}{call['function']['name']}{between}{arguments}{after}"

    def _head(self, system: str | None, tools: Sequence[dict[str, object]]) -> str:
        if not tools or self.tools is None:
            return self.no_system if system is None else self.system[0] + system + self.system[1]
        begin, before, after, end = self.tools.without_system if system is None else self.tools.with_system
        listed = "".join(before + json.dumps(one, ensure_ascii=False) + after for one in tools)
        return (begin + listed + end).replace(SYSTEM, system or "")

    def go(self) -> str:
        """The Go template, for `TEMPLATE` in a `Modelfile`."""
        head = [("if .System", self.system[0] + "{{ .System }}" + self.system[1]), ("else", self.no_system)]
        if self.tools is not None:
            both, alone = (self._go_tools(*one) for one in (self.tools.with_system, self.tools.without_system))
            head = [
                ("if and .System .Tools", both),
                ("else if .Tools", alone),
                ("else if .System", head[0][1]),
                head[1],
            ]
        text = "".join(f"{{{{ {condition} }}}}{part}" for condition, part in head) + "{{ end }}"
        text += "{{ range .Messages }}"
        text += '{{ if eq .Role "user" }}' + self.user[0] + "{{ .Content }}" + self.user[1]
        text += '{{ else if eq .Role "assistant" }}{{ .Content }}'
        if self.tools is not None:
            before, between, after = self.tools.call
            text += "{{ range .ToolCalls }}" + before + "{{ .Function.Name }}" + between
            text += "{{ .Function.Arguments }}" + after + "{{ end }}"
        text += self.answer
        if self.tools is not None:
            text += '{{ else if eq .Role "tool" }}' + self.tools.result[0] + "{{ .Content }}" + self.tools.result[1]
        return text + "{{ end }}{{ end }}"

    @staticmethod
    def _go_tools(begin: str, before: str, after: str, end: str) -> str:
        text = begin + "{{ range .Tools }}" + before + "{{ . }}" + after + "{{ end }}" + end
        return text.replace(SYSTEM, "{{ .System }}")


def read_turns(render: Any) -> TurnTexts | None:
    """Read the texts around messages off a chat template; None if a Go template cannot render the same.

    Args:
        render: called with messages and tools (or None); returns their text with the header of an answer, or raises any
            error.
    """
    user, answer, system = (
        {"role": role, "content": text} for role, text in (("user", USER), ("assistant", ANSWER), ("system", SYSTEM))
    )
    second = {"role": "user", "content": SECOND}
    try:
        first, middle = _split(render([user], None), USER), _split(render([user, answer, second], None), USER)
        begun, ended = _split(middle[1], ANSWER)
        between, tail = _split(ended, SECOND)
        before, rest = _split(render([system, user], None), SYSTEM)
        after, _ = _split(rest, USER)
        common = _common_end(first[0], between, after)
        found = TurnTexts(
            (before, after.removesuffix(common)),
            first[0].removesuffix(common),
            (common, tail),
            between.removesuffix(common),
        )
        turns = [[user], [system, user], [user, answer, second], [system, user, answer, second, answer, user]]
        if begun != tail or any(found.render(one) != render(one, None) for one in turns) or not _is_plain(found):
            return None
    except Exception:  # noqa: BLE001 - a template refuses messages with any error
        return None
    return _with_tools(found, render)


def _is_plain(turns: TurnTexts) -> bool:
    """Whether no text contains or completes signs of a Go template, or ends its text."""
    return "{{{" not in turns.go() and not any(sign in repr(turns) for sign in ("{{", "}}", '"""'))


def _message(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content}


def _with_tools(turns: TurnTexts, render: Any) -> TurnTexts:
    """Add the texts around tools, if the template has tools and Ollama can write them."""
    user, system, result = _message("user", USER), _message("system", SYSTEM), _message("tool", RESULT)
    call = _message("assistant", "") | {"tool_calls": [CALL]}
    try:
        heads = []
        for messages in ([system, user], [user]):
            text = render(messages, TOOLS)
            head = text[: text.index(turns.user[0] + USER)]
            begin, rest = _split(head, json.dumps(TOOLS[0], ensure_ascii=False))
            between, end = _split(rest, json.dumps(TOOLS[1], ensure_ascii=False))
            if begin.endswith(between):
                heads.append((begin.removesuffix(between), between, "", end))
            elif end.startswith(between):
                heads.append((begin, "", between, end.removeprefix(between)))
            else:
                return turns
        text = render([user, call, result], TOOLS)
        opened = TurnTexts(turns.system, turns.no_system, turns.user, "", None)
        rest = text[text.index(USER) + len(USER) :].removeprefix(opened.user[1])
        before, rest = _split(rest, CALL["function"]["name"])
        between, rest = _split(rest, json.dumps(CALL["function"]["arguments"], ensure_ascii=False))
        middle, end = _split(rest, RESULT)
        at = middle.index(turns.answer) if turns.answer else 0
        after, opening = middle[:at], middle[at + len(turns.answer) :]
        tools = ToolTexts(heads[0], heads[1], (before, between, after), (opening, end))
        found = TurnTexts(turns.system, turns.no_system, turns.user, turns.answer, tools)
        tried = ([user], [system, user], [user, call, result], [system, user, call, result])
        if all(found.render(one, TOOLS) == render(one, TOOLS) for one in tried) and _is_plain(found):
            return found
    except Exception:  # noqa: BLE001 - a template refuses messages with any error
        return turns
    return turns


def modelfile(  # noqa: PLR0913 - what a Modelfile has
    from_: str,
    tokenizer: PreTrainedTokenizerBase,
    stops: Sequence[int],
    *,
    generation: dict[str, Any],
    context: int | None,
    adapter: str = "",
) -> str:
    """The text of a `Modelfile`, for `ollama create`.

    Args:
        from_: what follows FROM: `.` for a folder of safetensors, or a GGUF file.
        tokenizer: its chat template is left out if it has no Go template.
        context: number of tokens that the model was made for, of which `num_ctx` gets at most `CONTEXT`; None if
            unknown.
    """
    lines = ["# Made by LLF. Use it with: ollama create NAME -f Modelfile"]
    if adapter:
        lines.append("# FROM is the base that the adapter was trained on: llf export BASE --format gguf")
    lines += [f"FROM {from_}", *([f"ADAPTER {adapter}"] if adapter else [])]
    turns = read_turns(_renderer(tokenizer)) if tokenizer.chat_template else None
    if turns is not None:
        lines.append(f'TEMPLATE """{turns.go()}"""')
    elif tokenizer.chat_template:
        lines.append("# The chat template has no exact equivalent in Ollama's language. A GGUF file has it inside.")
    ends = [text for one in stops if (text := tokenizer.decode([one]))]  # an empty one would stop at once
    lines += [f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in ends]
    if generation.get("do_sample") is False:
        lines.append("PARAMETER temperature 0")
    else:
        values = {name: generation.get(key) for key, name in PARAMETERS.items()}
        lines += [f"PARAMETER {name} {value:g}" for name, value in values.items() if isinstance(value, int | float)]
    if context is not None:
        lines.append(f"PARAMETER num_ctx {min(context, CONTEXT)}")
    return "\n".join(lines) + "\n"


def write_modelfile(  # noqa: PLR0913, PLR0917 - what a Modelfile has
    model: Any, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int], folder: Path, from_: str, adapter: str = ""
) -> Path:
    """Write the `Modelfile` of an export."""
    config = model.config.get_text_config(decoder=True)
    generation = getattr(model, "generation_config", None)
    text = modelfile(
        from_,
        tokenizer,
        stops,
        generation={} if generation is None else generation.to_diff_dict(),
        context=getattr(config, "max_position_embeddings", None),
        adapter=adapter,
    )
    path = folder / MODELFILE
    path.write_text(text, encoding="utf-8")
    return path


def _renderer(tokenizer: PreTrainedTokenizerBase) -> object:
    """Leaves out the token that begins a text, which Ollama adds itself."""
    begin = tokenizer.bos_token or ""

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        text = str(tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False))
        ids = tokenizer("a")["input_ids"]
        adds = bool(begin) and bool(ids) and ids[0] == tokenizer.bos_token_id
        return text.removeprefix(begin) if adds else text

    return render


def _split(text: str, mark: str) -> tuple[str, str]:
    before, after = text.split(mark)
    return before, after


def _common_end(*texts: str) -> str:
    length = min(map(len, texts))
    at = next((at for at in range(length) if len({one[-1 - at] for one in texts}) > 1), length)
    return texts[0][len(texts[0]) - at :]
