"""Limits on chat templates that come with a model: loops, calls, output size and memory of one rendering.

A template is a program. transformers runs it in Jinja's sandbox, which limits `range` and nothing else: nested loops
can run forever, and repeated doubling of a string fills the memory. The size of the result of a call, filter or
operator is estimated before it is computed; the memory held by all results is limited by the growth of the process.

Limits on the `tokenizers` library with untrusted files: panics become exceptions, and text growth is bounded.

The library is written in Rust. Its panics are no subclass of `Exception`, and its computations cannot be interrupted,
so the growth that a `tokenizer.json` allows is computed before any text is tokenized.
"""

from __future__ import annotations

import json
import re
import threading
import time
import warnings
from base64 import b64decode
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache, wraps
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psutil

from llf_core.models.errors import ModelError, first_line
from llf_core.models.model_folder import REDOWNLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jinja2 import Template, nodes
    from jinja2.runtime import Context
    from jinja2.visitor import NodeTransformer
    from transformers import PreTrainedTokenizerBase

    Check = Callable[..., tuple[object, ...] | None]


MAX_STEPS = 1_000_000
"""Loop iterations and calls of one rendering; a conversation of a thousand turns needs about ten thousand."""

MAX_SECONDS = 3.0
"""CPU seconds of one rendering, measured in its thread."""

CHECK_EVERY = 64
"""Steps between two checks of time and memory."""

MAX_SOURCE_LENGTH = 200_000
"""Characters of a template's source; published templates have about ten thousand."""

MAX_LENGTH = 50_000_000
"""Characters or entries of a single value that a template creates."""

MAX_OUTPUT_LENGTH = 200_000_000
"""Characters that one rendering may write, including the output of its macros."""

MAX_NESTED_ENTRIES = 300_000
"""Entries of nested lists and mappings where all of them are written, joined or compared."""

MAX_WIDTH = 100_000
"""Largest width or count that a filter or method accepts."""

MAX_SPLIT_LENGTH = 5_000_000
"""Characters of a string that is split into a list."""

MEMORY_CHECK_LENGTH = 100_000
"""Characters of a value from which the memory of the process is checked."""

MAX_MEMORY = 800_000_000
"""Bytes by which the process may grow during one rendering."""

MAX_INT_BITS = 100_000
"""Bits of an integer that a template computes."""
STEP, JOIN, WRITE, WHOLE, KEPT = "llf_step", "llf_join", "llf_write", "llf_whole", " steps"
_rendering = threading.local()


def limit_templates() -> None:
    """Make transformers compile chat templates with these limits, for the rest of the process."""
    from jinja2 import pass_context
    from transformers.utils import chat_template_utils as theirs

    plain = theirs._cached_compile_jinja_template  # noqa: SLF001 - pinned by a test: templates that loop end
    if getattr(plain, "bounded", False):
        return

    def compile_bounded(chat_template: str) -> Template:
        if len(chat_template) > MAX_SOURCE_LENGTH:
            raise template_limit_error()(
                f"it has {len(chat_template):,} characters; at most {MAX_SOURCE_LENGTH:,} are read"
            )
        # transformers' environment, from an empty template: compiling a template already evaluates its constants.
        environment = plain("").environment
        environment.__class__ = _bounded(type(environment))
        environment.filters |= {STEP: pass_context(_step), JOIN: _join, WRITE: pass_context(_write), WHOLE: _whole}
        environment.filters |= {name: _checked(environment.filters[name], check) for name, check in FILTERS.items()}
        environment.tests |= {name: _checked(environment.tests[name], _check_both) for name in TESTS}
        environment.globals.pop("lipsum", None)
        template: Template = environment.from_string(chat_template)
        return template

    compile_bounded.bounded = True  # type: ignore[attr-defined]
    theirs._cached_compile_jinja_template = compile_bounded  # noqa: SLF001
    theirs._compile_jinja_template.cache_clear()  # noqa: SLF001


@cache
def template_limit_error() -> type[Exception]:
    """Class of the `jinja2.TemplateError` that a template raises when it exceeds a limit."""
    from jinja2.exceptions import TemplateError

    class EndlessTemplateError(TemplateError):
        pass

    return EndlessTemplateError


@cache
def _counted() -> NodeTransformer:
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Counted(NodeTransformer):
        def visit_For(self, node: nodes.For, *args: object, **kwargs: object) -> nodes.Node:  # noqa: N802 - Jinja's name
            self.generic_visit(node, *args, **kwargs)
            step = nodes.Filter(nodes.Const(0), STEP, [], [], None, None, lineno=node.lineno)
            node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
            return node

        def visit_Concat(self, node: nodes.Concat, *args: object, **kwargs: object) -> nodes.Node:  # noqa: N802
            self.generic_visit(node, *args, **kwargs)
            parts = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(parts, JOIN, [], [], None, None, lineno=node.lineno)

        def visit_Output(self, node: nodes.Output, *args: object, **kwargs: object) -> list[nodes.Node]:  # noqa: N802
            self.generic_visit(node, *args, **kwargs)
            texts = [one for one in node.nodes if isinstance(one, nodes.TemplateData)]
            length = nodes.Const(sum(len(one.data) for one in texts))
            step = nodes.Filter(length, STEP, [], [], None, None, lineno=node.lineno)
            node.nodes = [one if one in texts else through(one, WRITE) for one in node.nodes]
            return [nodes.ExprStmt(step, lineno=node.lineno), node]

        def visit_Compare(self, node: nodes.Compare, *args: object, **kwargs: object) -> nodes.Node:  # noqa: N802
            self.generic_visit(node, *args, **kwargs)
            node.expr = through(node.expr, WHOLE)
            for operand in node.ops:
                operand.expr = through(operand.expr, WHOLE)
            return node

    def through(node: nodes.Expr, name: str) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    return Counted()


def _bounded(plain: type) -> type:
    class Bounded(plain):  # type: ignore[misc]
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree: nodes.Template = super()._parse(source, name, filename)
            _counted().visit(tree)
            tree.set_environment(self)
            return tree

        def call(self, context: Context, called: object, /, *args: object, **kwargs: object) -> object:
            _count(context, 1)
            method = getattr(called, "__wrapped__", called)  # the sandbox wraps str.format
            owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if isinstance(owner, str | bytes | int) and name in METHODS:
                args = METHODS[name](owner, *args, **kwargs) or args
            return super().call(context, called, *args, **kwargs)

        def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
            _count(context, 1)
            _check_operands(operator, left, right)
            return super().call_binop(context, operator, left, right)

    return Bounded


def _count(context: Context, steps: int, written: int = 0) -> None:
    spent = context.parent.get(KEPT)
    if spent is None:
        spent = context.parent[KEPT] = [0, 0, time.thread_time()]
        _rendering.began = None
    spent[0] += steps
    spent[1] += written
    if spent[0] > MAX_STEPS:
        raise template_limit_error()(f"it takes more than {MAX_STEPS:,} rounds of loops and calls")
    if spent[1] > MAX_OUTPUT_LENGTH:
        raise template_limit_error()(f"it writes more than {MAX_OUTPUT_LENGTH:,} characters")
    if spent[0] % CHECK_EVERY == 0 and time.thread_time() - spent[2] > MAX_SECONDS:
        raise template_limit_error()(f"it takes more than {MAX_SECONDS:g} s")


def _step(context: Context, value: int) -> int:
    _count(context, 1, value)
    return value


def _write(context: Context, value: object) -> str:
    text = value if isinstance(value, str) else str(_whole(value))
    _count(context, 1, len(text))
    return text


def _join(parts: Iterable[object]) -> str:
    texts = [str(_whole(part)) for part in parts]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _whole(value: object) -> object:
    """Return the value if iterating over all of it is finite."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        _check_length(_size(value))
    return value


def _size(value: object) -> int:
    """Approximate number of characters of a value when it is written."""
    size, entries, todo = 0, 0, [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str | bytes):
            size += len(one)
        elif isinstance(one, Mapping | list | tuple | set | frozenset):
            entries += len(one)
            if entries > MAX_NESTED_ENTRIES:
                return MAX_LENGTH + 1
            todo += [*one, *one.values()] if isinstance(one, Mapping) else one
            size += 4 * len(one)
        else:
            size += 4
    return size


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise template_limit_error()(f"it writes more than {MAX_LENGTH:,} characters")
    if length > MEMORY_CHECK_LENGTH:
        memory = psutil.Process().memory_info().rss
        if getattr(_rendering, "began", None) is None:
            _rendering.began = memory
        if memory - _rendering.began > MAX_MEMORY:
            raise template_limit_error()(f"it takes more than {MAX_MEMORY // 10**6:,} MB of memory")


def _checked(plain: Callable[..., object], check: Check) -> Callable[..., object]:
    """Wrap a filter so that `check` sees its arguments first; `check` may return other arguments to use."""
    passed = int(hasattr(plain, "jinja_pass_arg"))

    @wraps(plain)  # keeps the mark that makes Jinja pass its context
    def checked(*args: object, **kwargs: object) -> object:
        changed = check(*args[passed:], **kwargs)
        return plain(*args[:passed], *(changed or args[passed:]), **kwargs)

    return checked


def _check_widths(value: object, *args: object, **kwargs: object) -> None:
    size = _size(_whole(value)) if isinstance(value, str | bytes | Mapping | list | tuple) else 0
    for one in (*args, *kwargs.values()):
        if isinstance(one, int) and abs(one) > MAX_WIDTH:
            raise template_limit_error()(
                f"it asks for a width or a number of {abs(one):,}; at most {MAX_WIDTH:,} are made"
            )
        if isinstance(one, str):
            size += len(one)
    _check_length(size)


def _check_slow(value: object, *args: object, **kwargs: object) -> None:
    _check_widths(value, *args, **kwargs)
    _check_length(_size(value) * 50)  # fifty times as slow per character


def _check_taken_apart(value: object, *_args: object, **_kwargs: object) -> None:
    """Limit strings that are split into lists: a list entry takes about fifty times the memory of a character."""
    if isinstance(value, str | bytes):
        _check_length(len(value) * (MAX_LENGTH // MAX_SPLIT_LENGTH))


def _check_printed(value: object, *_args: object, **_kwargs: object) -> None:
    _check_length(_size(value) * (MAX_LENGTH // MEMORY_CHECK_LENGTH))  # hundreds of times as slow


def _check_lines(value: object, width: object = 4, *_args: object, **_kwargs: object) -> None:
    wide = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
    text = str(_whole(value))
    _check_length(len(text) + (text.count("\n") + 1) * max(wide, 0))


def _check_tabs(text: Any, tabsize: int = 8) -> None:
    _check_length(len(text) + text.count("\t" if isinstance(text, str) else b"\t") * max(tabsize, 0))


def _check_replaced(value: object, old: object, new: object, *_args: object, **_kwargs: object) -> None:
    given: tuple[object, ...] = (value, old, new)
    text, old, new = (one if isinstance(one, bytes) else str(_whole(one)) for one in given)
    found = str(text).count(str(old)) if isinstance(text, str) else len(text)
    _check_length(len(text) + found * max(len(new) - len(old), 0))


def _check_joined(separator: str | bytes, parts: Iterable[object]) -> tuple[object, ...]:
    """Limit `separator.join(parts)`; the parts are iterated once."""
    parts = list(parts)
    _check_length(_size(parts) + len(separator) * len(parts))
    return (parts,)


def _check_joined_by_filter(value: Iterable[object], *args: object, **kwargs: object) -> tuple[object, ...]:
    separator = args[0] if args else kwargs.get("d", "")
    return (*_check_joined(str(_whole(separator)), value), *args)


def _check_formatted(text: Any, *args: object, **kwargs: object) -> None:
    """Limit `text % args` and `text.format(args)`: each field may be as wide as a number in it, or as an argument."""
    text = text if isinstance(text, str | bytes) else str(_whole(text))
    signs = ("%", "{", "*") if isinstance(text, str) else (b"%", b"{", b"*")
    given = [_whole(one) for one in (*args, *kwargs.values())]
    places = sum(text.count(sign) for sign in signs)
    numbers = [int(one) for one in re.findall(r"\d{1,18}", str(text))]
    asked = any(sign in text for sign in (("*", "{}", ":{") if isinstance(text, str) else (b"*",)))
    flat = [one for value in given for one in (value if isinstance(value, list | tuple) else (value,))]
    widths = [abs(one) for one in flat if isinstance(one, int)] if asked else []
    _check_length(len(text) + places * (_size(given) + max(widths, default=0)) + sum(numbers))


def _check_translated(text: str, table: Any, *_args: object) -> None:
    values = table.values() if isinstance(table, Mapping) else table
    longest = max((len(one) for one in values if isinstance(one, str)), default=1)
    _check_length(len(text) * max(longest, 1))


def _check_sum(_value: object, attribute: object = None, start: object = 0) -> None:  # noqa: ARG001 - as the filter has them
    if not isinstance(start, int | float):
        raise template_limit_error()("it adds up values that are not numbers")


def _check_json(value: object, *args: object, **kwargs: object) -> None:
    spaces = [one for one in (*args, *kwargs.values()) if isinstance(one, int | str)]
    wide = max((len(one) if isinstance(one, str) else one for one in spaces), default=0)
    _check_length(_size(_whole(value)) * (1 + max(wide, 0)))


def _check_whole(value: object, *_args: object, **_kwargs: object) -> None:
    _whole(value)


def _check_both(one: object, *others: object) -> None:
    for value in (one, *others):
        _whole(value)


FILTERS: Mapping[str, Check] = {
    **dict.fromkeys(("center", "batch", "slice", "truncate", "round"), _check_widths),
    **dict.fromkeys(("wordwrap", "urlize", "striptags", "title", "wordcount", "xmlattr"), _check_slow),
    **dict.fromkeys(("escape", "e", "forceescape", "string", "unique", "sort", "dictsort", "groupby"), _check_whole),
    **dict.fromkeys(("min", "max", "upper", "lower", "capitalize", "trim", "urlencode", "safe"), _check_whole),
    "list": _check_taken_apart,
    "indent": _check_lines,
    "replace": _check_replaced,
    "join": _check_joined_by_filter,
    "format": _check_formatted,
    "sum": _check_sum,
    "tojson": _check_json,
    "pprint": _check_printed,
}

TESTS = (
    "eq",
    "==",
    "equalto",
    "ne",
    "!=",
    "in",
    "lt",
    "<",
    "le",
    "<=",
    "gt",
    ">",
    "ge",
    ">=",
    "lessthan",
    "greaterthan",
)

METHODS: Mapping[str, Check] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "to_bytes"), _check_widths),
    **dict.fromkeys(("split", "rsplit", "splitlines"), _check_taken_apart),
    "expandtabs": _check_tabs,
    "replace": _check_replaced,
    "join": _check_joined,
    "format": _check_formatted,
    "format_map": _check_formatted,
    "translate": _check_translated,
}


def _check_operands(operator: str, left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int):
        power = operator == "**" and right > 0 and left.bit_length() * right > MAX_INT_BITS
        if power or (operator == "*" and left.bit_length() + right.bit_length() > MAX_INT_BITS):
            raise template_limit_error()(f"it makes a number of more than {MAX_INT_BITS:,} bits")
    if operator == "%" and isinstance(left, str | bytes):
        _check_formatted(left, right)
    sized = (str, bytes, list, tuple)
    for one, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(one, sized) and isinstance(times, int):
            _check_length(_size(one) * max(times, 0))
    if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
        _check_length(len(left) + len(right))


PANIC = "PanicException"

MAX_GROWTH = 324
"""Maximum growth factor of a normalizer or decoder: ALBERT's, which is 18 of NFKD times 18 of SentencePiece's map."""

MAX_ADDED_LENGTH = 1000
"""Characters that a normalizer or decoder may add to a text."""

PROBE_TEXTS = ("a", "Hello, world 1", "\u00e4 \u4f60\u597d \U0001f642")
"""Texts that every tokenizer must accept: ASCII, a script without spaces, and characters beyond 16 bits."""

FORMS = {"NFC": 4, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 2, "StripAccents": 1}
"""Characters that each makes of one, measured over all (https://unicode.org/faq/normalization.html#12).

NFC has the value of NFD. In a row of them only the largest counts, since none enlarges a decomposition.
"""

GROWTH = FORMS | {"BertNormalizer": 3, "ByteLevel": 4, "WordPiece": 2, "BPEDecoder": 2, "CTC": 2}
"""The same for other normalizers, measured too, and for decoders, which may add a blank to each token or character."""


class PanicError(RuntimeError):
    """A panic of a library written in Rust."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Context manager that turns Rust panics, which derive from `BaseException`, into `PanicError`."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise PanicError(first_line(error)) from error


def is_tokenizer_error(error: Exception) -> bool:
    """Whether an exception comes from the tokenizers library, which raises plain `Exception` or panics."""
    return type(error) is Exception or isinstance(error, PanicError)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that lets texts grow beyond `MAX_GROWTH` or `MAX_ADDED_LENGTH`, or fails on `PROBE_TEXTS`.

    Slow tokenizers, written in Python, are not checked.

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
    """Upper bound of the factor by which a normalizer or decoder lets a text grow, and of the characters it adds.

    In a sequence the factors multiply, and each component makes the text added before it grow too.
    """
    kind = part.get("type")
    if kind == "Sequence":
        times, added = 1.0, 0
        for forms, row in groupby(_flat(part), lambda one: one.get("type") in FORMS):
            bounds = [_growth_bound(one) for one in row]
            for more, longer in [max(bounds)] if forms else bounds:
                times, added = times * more, int(added * more) + longer
        return times, added
    if kind == "Prepend":
        return 1.0, len(part.get("prepend") or "")
    if kind == "Replace":
        content, shortest = len(part.get("content") or ""), _shortest_match(part.get("pattern") or {})
        # A match of nothing inserts the content before each character and at the end.
        return (max(1.0, content / shortest), 0) if shortest else (1.0 + content, content)
    if kind == "Precompiled":
        return max(1.0, _longest_entry(b64decode(part.get("precompiled_charsmap") or ""))), 0
    return float(GROWTH.get(str(kind), 1)), 0


def _flat(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The components of a sequence and of those in it."""
    for inner in part.get("normalizers") or part.get("decoders") or ():
        yield from _flat(inner) if inner.get("type") == "Sequence" else (inner,)


def _shortest_match(pattern: dict[str, str]) -> int:
    """Lower bound of the number of characters that a pattern matches.

    `re` computes it; 0 for expressions that Oniguruma, which matches them, may read in another way.
    """
    if "Regex" not in pattern:
        return len(pattern.get("String") or "")
    text = pattern["Regex"]
    if text.count("[") > 1 or "}?" in text:
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return int(re._parser.parse(text).getwidth()[0])  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
    except (re.error, RecursionError, OverflowError, Warning):
        return 0


def _longest_entry(charsmap: bytes) -> int:
    """Number of characters of the longest replacement in SentencePiece's map.

    Format (`Normalizer::DecodePrecompiledCharsMap`): the trie's length as 32 bits little-endian, the trie, and texts
    that end with a zero byte.
    """
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0"))
