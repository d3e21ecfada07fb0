"""Chat templates of others end: what one rendering may loop, call, write and compute has a limit.

A template is a program that comes with a model. transformers runs it in Jinja's sandbox, which bounds `range` and
nothing else: two loops inside each other never end, and texts that double fill the memory.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Template, nodes
    from jinja2.runtime import Context

STEPS = 1_000_000
"""Rounds of loops and calls of one rendering; a conversation of a thousand turns takes some ten thousand."""
SECONDS = 3.0
"""Processor time of one rendering, in its thread."""
LOOKED_EVERY = 64
LONGEST = 50_000_000
"""Characters or entries of what a template joins or multiplies."""
MOST_BITS = 100_000
"""Of a whole number that a template makes."""
STEP, JOIN, KEPT = "llf_step", "llf_join", " steps"


def bound_templates() -> None:
    """Has transformers compile chat templates with these limits, for the rest of the process."""
    from jinja2 import pass_context
    from transformers.utils import chat_template_utils as theirs

    plain = theirs._cached_compile_jinja_template  # noqa: SLF001 - pinned by a test: templates that loop end
    if getattr(plain, "bounded", False):
        return

    def compile_bounded(chat_template: str) -> Template:
        # An environment of theirs, made with an empty text: compiling a template works out its constants already.
        environment = plain("").environment
        environment.__class__ = _bounded(type(environment))
        environment.filters |= {STEP: pass_context(_step), JOIN: _join}
        template: Template = environment.from_string(chat_template)
        return template

    compile_bounded.bounded = True  # type: ignore[attr-defined]
    theirs._cached_compile_jinja_template = compile_bounded  # noqa: SLF001
    theirs._compile_jinja_template.cache_clear()  # noqa: SLF001


@cache
def endless_error() -> type[Exception]:
    """What a template that meets a limit raises; a `TemplateError`."""
    from jinja2.exceptions import TemplateError

    class EndlessTemplateError(TemplateError):
        """A chat template that would take too long or too much memory."""

    return EndlessTemplateError


@cache
def _counted() -> Any:
    """What has each round of a loop counted, and texts joined where their length is looked at."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Counted(NodeTransformer):
        def visit_For(self, node: nodes.For, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802 - Jinja's name
            self.generic_visit(node, *args, **kwargs)
            step = nodes.Filter(nodes.Const(0), STEP, [], [], None, None, lineno=node.lineno)
            node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
            return node

        def visit_Concat(self, node: nodes.Concat, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802
            self.generic_visit(node, *args, **kwargs)
            parts = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(parts, JOIN, [], [], None, None, lineno=node.lineno)

    return Counted()


def _bounded(plain: type) -> type:
    """A sandbox like another one, with limits."""

    class Bounded(plain):  # type: ignore[misc]
        """Counts rounds and calls, and looks at what is multiplied and joined."""

        intercepted_binops = frozenset({"+", "*", "**"})

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree: nodes.Template = super()._parse(source, name, filename)
            _counted().visit(tree)
            tree.set_environment(self)
            return tree

        def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
            _count(context, 1)
            return super().call(context, called, *args, **kwargs)

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            _check_operands(operator, left, right)
            return super().call_binop(context, operator, left, right)

    return Bounded


def _count(context: Context, steps: int) -> None:
    spent = context.parent.get(KEPT)
    if spent is None:
        spent = context.parent[KEPT] = [0, time.thread_time()]
    spent[0] += steps
    if spent[0] > STEPS:
        raise endless_error()(f"it takes more than {STEPS:,} rounds of loops and calls")
    if spent[0] % LOOKED_EVERY == 0 and time.thread_time() - spent[1] > SECONDS:
        raise endless_error()(f"it takes more than {SECONDS:g} s")


def _step(context: Context, value: Any) -> Any:
    _count(context, 1)
    return value


def _join(parts: Iterable[Any]) -> str:
    texts = [str(part) for part in parts]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _check_length(length: int) -> None:
    if length > LONGEST:
        raise endless_error()(f"it writes more than {LONGEST:,} characters")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuses what would take memory or time without a bound."""
    numbers = isinstance(left, int) and isinstance(right, int)
    if operator == "**" and numbers and right > 0 and left.bit_length() * right > MOST_BITS:
        raise endless_error()(f"it makes a number of more than {MOST_BITS:,} bits")
    if operator == "*" and numbers and left.bit_length() + right.bit_length() > MOST_BITS:
        raise endless_error()(f"it makes a number of more than {MOST_BITS:,} bits")
    sized = (str, bytes, list, tuple)
    if operator == "*" and isinstance(left, sized) and isinstance(right, int):
        _check_length(len(left) * max(right, 0))
    if operator == "*" and isinstance(right, sized) and isinstance(left, int):
        _check_length(len(right) * max(left, 0))
    if operator == "+" and isinstance(left, sized) and isinstance(right, sized):
        _check_length(len(left) + len(right))
