"""The docs name what there is: commands, plug-ins, notebook names, folders, files, routes."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import tomllib
from functools import cached_property
from pathlib import Path

import typer

import llf_widgets
from llf_core.cli import app
from llf_core.config.registry import DECLARATION_TYPES, GROUPS
from llf_core.runs import RunFolder
from llf_core.runs.archive import FILES, FOLDERS
from llf_core.runs.control import REQUEST_TYPES
from llf_core.runs.status import Status
from llf_widgets.server.routes import ROUTES

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def part(name: str, title: str) -> str:
    """The text of a section of a page."""
    text = page(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, f"docs/{name} has no section {title}"
    return text


def test_commands_are_those_of_the_command_line() -> None:
    top = typer.main.get_command(app)
    named = re.findall(r"`llf ([\w-]+)", part("commands.md", "Commands"))
    (of_runs,) = re.findall(r"`llf runs \[([\w|-]+)\]`", part("commands.md", "Commands"))
    assert set(named) == set(top.commands)  # type: ignore[attr-defined]
    assert set(of_runs.split("|")) == set(top.commands["runs"].commands)  # type: ignore[attr-defined]


def test_kinds_of_plug_ins_are_those_that_are_called() -> None:
    sentence = part("design.md", "Plug-ins").partition(".")[0]
    assert re.findall(r"`(\w+)`", sentence) == list(GROUPS)
    assert re.findall(r"`(llf\.\w+)`", part("design.md", "Plug-ins")) == list(GROUPS.values())


def test_the_page_on_plug_ins_has_each_kind_with_its_declaration_and_its_hook() -> None:
    text = page("plugins.md")
    rows = re.findall(r"^\| `(\w+)` \| `(llf\.\w+)` \| `(\w+)` \| `([\w.]+)\.(\w+)\.(\w+)`", text, re.MULTILINE)
    assert [(kind, group) for kind, group, *_ in rows] == list(GROUPS.items())
    assert [declaration for _, _, declaration, *_ in rows] == [one.__name__ for one in DECLARATION_TYPES]
    for _, _, _, module, name, hook in rows:
        base = getattr(importlib.import_module(module), name)
        assert hook in base.__abstractmethods__
    example = part("plugins.md", "A worked example")
    assert sum(len(block.strip().splitlines()) for block in example.split("```")[1::2]) < 60


def test_names_of_the_notebook_are_there() -> None:
    code = part("commands.md", "Notebook names").split("```")[1]
    named = set(re.findall(r"\bllf\.(\w+)", code))
    assert named <= set(llf_widgets.__all__)
    assert set(llf_widgets.__all__) - named == {"__version__", "load_ipython_extension"}


def test_extras_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sentence = re.search(r"More extras: ([^.]*)\.", part("developing.md", "Dependencies"))
    assert sentence is not None
    assert {"train", *re.findall(r"`(\w+)`", sentence[1])} == set(extras)


def test_folders_are_there() -> None:
    house = part("design.md", "Packages").split("```")[1]
    for base in ("llf_core", "llf_widgets"):
        block = re.search(rf"^{base}/.*\n((?:  .*\n)+)", house, re.MULTILINE)
        assert block is not None
        for line in block[1].splitlines():
            names = re.split(r"\s{3,}", line.strip())[0]
            folders = re.findall(r"([\w-]+)/", names)
            assert all((ROOT / base / one).is_dir() for one in folders if one != "labextension"), line
        named = set(re.findall(r"([\w-]+)/", block[1]))
        there = {path.parent.name for path in (ROOT / base).glob("*/__init__.py")}
        assert there <= named, base


def test_routes_are_those_of_the_server() -> None:
    named = {
        re.sub(r"<(id|key)>", "X", route.partition("?")[0])
        for route in re.findall(r"`(?:GET|POST|PATCH|DELETE) llf/api/([^`]*)`", page("formats.md"))
    }
    served = {re.sub(r"\(\?P<(run_id|key)>[^)]*\)", "X", route).replace("\\", "") for route, _ in ROUTES}
    assert named == served


def test_files_of_a_run_are_those_of_its_folder() -> None:
    files = page("formats.md").partition("\n## The run folder\n")[2].partition("\n### ")[0]
    run = RunFolder(Path("runs/run"))
    paths = [getattr(run, name) for name, kind in vars(RunFolder).items() if isinstance(kind, cached_property)]
    assert len(paths) > 20
    assert not [path.name for path in paths if path.name not in files]
    assert not [name for name in FILES | FOLDERS if name not in files]


def test_fields_of_the_status_and_types_of_requests_are_those_of_the_code() -> None:
    text = page("formats.md")
    status, control = (
        text.partition(f"\n### `{title}`\n")[2].partition("\n### ")[0] for title in ("status.json", "control/")
    )
    assert not [field.name for field in dataclasses.fields(Status) if f'"{field.name}"' not in status]
    assert not [kind for kind in REQUEST_TYPES if f"`{kind}`" not in control]


def modules() -> dict[str, list[Path]]:
    """The modules of llf_core by every end of their dotted path: `head`, `patching.head`, ...."""
    found: dict[str, list[Path]] = {}
    for path in (ROOT / "llf_core").rglob("*.py"):
        parts = path.relative_to(ROOT / "llf_core").with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), []).append(path)
    return found


def test_names_that_packages_use_of_each_other_are_in_the_module_that_is_named() -> None:
    code = part("developing.md", "Public names").split("```")[1]
    named = set(re.findall(r"(?<![\w./`\"])([a-z_]+(?:\.[a-z_]+)*)\.([A-Za-z_]+)(?=[(:])", code))
    named = {(module, name) for module, name in named if module not in {"config", "llf_core"}}  # `config` is an object
    assert len(named) > 30
    known = modules()
    assert not {module for module, _ in named if module not in known}
    for module, name in named:
        submodules = {path.stem for one in known[module] for path in one.parent.glob("*.py")}
        texts = "".join(path.read_text() for path in known[module])
        assert name in submodules or re.search(rf"\b{name}\b", texts), f"{module}.{name}"


def test_files_that_the_docs_name_are_there() -> None:
    there = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = set(inner) - {".venv", "node_modules"}
        there += [f"{folder.removeprefix(str(ROOT))}/{file}" for file in files if Path(file).suffix]
    for path in sorted((ROOT / "docs").glob("*.md")):
        for file in re.findall(r"`((?:\w+/)+\w+\.(?:py|toml|jinja|mjs|tsx?|js))`", path.read_text()):
            assert any(one.endswith("/" + file) for one in there), f"{path.name} names {file}"
