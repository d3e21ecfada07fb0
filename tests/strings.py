"""The strings of LLF that people read, with file and line. `python -m tests.strings [PATH …]` prints them."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
READ = (
    "label",
    "help",
    "unit",
    "description",
    "title",
    "tooltip",
    "placeholder",
    "fix",
    "reason",
    "message",
    "aria_label",
)
PROSE = re.compile(r"[^\W\d_]{2,}['\u2019]?[,;:]? +[^\W\d_]+")  # two words beside each other
CODE = re.compile(r"^\s*(import |from \w+ import|def |class |<[a-z]+|--[a-z]|\.llf|@media|https?://)")
FRONT = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|`(?:[^`\\]|\\.)*`|//[^\n]*|/\*.*?\*/", re.DOTALL)
COMMANDS = frozenset(
    re.findall(r"\.command\([^)]*\)\((\w+)\)", (ROOT / "llf_core" / "cli" / "application.py").read_text())
)
"""Functions of `llf_core/cli` that are commands: their docstrings are help texts."""
TRANSLATED = re.compile(r"trans\s*\.\s*(?:__|_n)\(\s*$")


class Text(NamedTuple):
    """A string, with the file and the line where it begins."""

    file: str
    line: int
    text: str
    role: str  # name of the keyword that takes it, `trans` for a translated one, else ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'({self.role}) ' if self.role else ''}{self.text!r}"


def _brief(part: ast.AST) -> str:
    text = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
    return text if len(text) < 50 else "…"


def _joined(node: ast.AST) -> str | None:
    """Return the text of a string or f-string; `{…}` stands for each value of an f-string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{" + _brief(part) + "}" for part in node.values
        )
    return None


def python_texts(path: Path, name: str) -> Iterator[Text]:
    """Yield the readable strings of a Python file: prose outside docstrings, and single words in `READ` arguments."""
    stack: list[tuple[ast.AST, str]] = [(ast.parse(path.read_text(encoding="utf-8")), "")]
    while stack:
        node, role = stack.pop()
        text = _joined(node)
        if text is not None:
            word = name.startswith("llf_widgets") and re.fullmatch("[A-Z][a-z]+", text)
            if word or (role and re.search(r"[^\W\d_]", text)) or (PROSE.search(text) and not CODE.match(text)):
                yield Text(name, node.lineno, text, role)  # type: ignore[attr-defined]
            if isinstance(node, ast.JoinedStr):
                stack += [
                    (inner, "")
                    for part in node.values
                    for inner in ast.iter_child_nodes(part)
                    if not isinstance(part, ast.Constant)
                ]
            continue
        body = getattr(node, "body", [])
        if isinstance(node, ast.FunctionDef) and name.startswith("llf_core/cli/") and node.name in COMMANDS:
            yield Text(name, node.lineno, ast.get_docstring(node) or "", "help")
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and _joined(child.value) is not None
                and isinstance(body, list)
                and child in body
            ):
                continue  # a docstring
            if isinstance(child, ast.keyword):
                passed = child.arg if child.arg in READ else ""
            elif isinstance(node, ast.keyword | ast.IfExp | ast.BinOp) and not isinstance(
                child, ast.Compare | ast.Call
            ):
                passed = "" if isinstance(node, ast.IfExp) and child is node.test else role
            else:
                passed = ""
            stack.append((child, passed or ""))


def front_texts(path: Path, name: str) -> Iterator[Text]:
    """Yield the readable strings of a JavaScript or TypeScript file: prose, and whatever is translated."""
    source = path.read_text(encoding="utf-8")
    for found in FRONT.finditer(source):
        literal = found.group()
        if literal.startswith("/"):
            continue
        text = literal[1:-1]
        translated = TRANSLATED.search(source, max(0, found.start() - 40), found.start()) is not None
        shown = re.search(
            r"(?:aria-label|title|placeholder|textContent|label)'?\s*[:=]\s*$",
            source[max(0, found.start() - 24) : found.start()],
        )
        if translated or shown or PROSE.search(text):
            yield Text(
                name,
                source.count("\n", 0, found.start()) + 1,
                text,
                "trans" if translated else "shown" if shown else "",
            )


def texts(*under: str) -> list[Text]:
    """Return the readable strings of all tracked sources, or of those below `under`, by file and line."""
    found: list[Text] = []
    folders = under or ("llf_core", "llf_widgets", "labextension/src", "labextension/widgets")
    for folder in folders:
        start = ROOT / folder
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if (
                "__tests__" in name
                or "node_modules" in name
                or name.startswith(("llf_widgets/labextension", "llf_widgets/static"))
            ):
                continue
            if path.suffix == ".py":
                found += python_texts(path, name)
            elif path.suffix in {".js", ".ts", ".tsx"}:
                found += front_texts(path, name)
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.writelines(f"{text}\n" for text in texts(*sys.argv[1:]))
