"""No file imports itself through others, wherever the imports stand: at the top, in a function, or for types."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIDEBAR = ROOT / "labextension/src"


def modules() -> dict[str, Path]:
    """The files of both packages by the names that they are imported by."""
    paths = [path for package in ("llf_core", "llf_widgets") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(source: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a source imports; `from package import module` means the module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in whole.values()}
    return found & known.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph; empty where it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_a_circle_is_found_in_functions_and_among_types() -> None:
    known = dict.fromkeys(("a", "a.b", "a.c", "a.d"), Path())
    sources = {
        "a.b": "from a import c\nimport os\n",
        "a.c": "def f():\n    import a.d\n",
        "a.d": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import B\n",
    }
    graph = {name: imported(source, known) for name, source in sources.items()}
    assert graph == {"a.b": {"a.c"}, "a.c": {"a.d"}, "a.d": {"a.b"}}
    assert set(circle(graph)) == {"a.b", "a.c", "a.d"}
    assert circle(graph | {"a.c": set()}) == []


def test_no_file_imports_itself_through_others() -> None:
    known = modules()
    graph = {name: imported(path.read_text(), known) - {name} for name, path in known.items()}
    assert len(graph) > 400
    assert " → ".join(circle(graph)) == ""


def test_no_file_of_the_sidebar_imports_itself_through_others() -> None:
    files = {path.stem: path for path in SIDEBAR.glob("*.ts*")}
    graph = {
        name: set(re.findall(r"""(?:from|import)\s*\(?\s*['"]\./(\w+)['"]""", path.read_text())) & files.keys()
        for name, path in files.items()
    }
    assert sum(map(len, graph.values())) > 50
    assert " → ".join(circle(graph)) == ""
