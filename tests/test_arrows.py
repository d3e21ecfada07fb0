"""Imports go one way (docs/design.md), and what must open at once imports nothing large."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from llf_core.config.registry import all_declared

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "datasets", "pandas", "peft", "trl", "accelerate", "bitsandbytes"}
WIDGETS = {"plotly", "ipywidgets", "anywidget"}
NOTEBOOK = WIDGETS | {"jupyter_server", "jupyterlab", "IPython", "ipykernel", "llf_widgets"}

# A package imports only what stands before it, or beside it without a circle.
RANKS = (
    {"install_command", "lazy_exports", "redaction", "user_error"},
    {"untrusted", "model_catalog"},
    {"config"},
    {"runs"},
    {"user_functions", "remote"},
    {"rewards", "metrics"},
    {"launch", "doctor", "estimate"},
    {"methods", "modifiers", "optimizers", "data", "models", "acceleration", "generation"},
    {"stages"},
    {"training"},
    {"chat"},
    {"evaluation", "export"},
    {"cli"},
)
SHARED_WITH_SERVER = (
    *(f"llf_widgets.monitor.{name}" for name in ("run_view", "mime_bundle")),
    "llf_core.evaluation.judge.win_rate",
)
"""What a run's monitor is made of and what a judge's verdicts come to, by a kernel or by the server."""
LIGHT = {
    "install_command",
    "lazy_exports",
    "redaction",
    "user_error",
    "untrusted",
    "model_catalog",
    "config",
    "runs",
    "user_functions",
    "remote",
    "rewards",
    "metrics",
    "launch",
    "doctor",
    "estimate",
}
PACKAGES = set().union(*RANKS)


def rank(package: str) -> int:
    return next(number for number, names in enumerate(RANKS) if package in names)


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "llf_core").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def needs(path: Path) -> set[str]:
    """The other packages of llf_core that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("llf_core.")}
    return (names & PACKAGES) - {package_of(path)}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_every_package_has_a_rank() -> None:
    packages = {package_of(path) for path in sources("llf_core")} - {"__init__"}
    assert packages >= {"config", "runs", "launch", "data", "models", "methods", "stages", "training", "cli"}
    assert packages <= PACKAGES, "name the new package's place in docs/design.md, then here"


@pytest.mark.parametrize("path", sources("llf_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_one_way(path: Path) -> None:
    own = package_of(path)
    assert not {name for name in imported(path) if name.split(".")[0] in NOTEBOOK}
    if own != "__init__":
        upward = {other for other in needs(path) if rank(other) > rank(own)}
        assert not upward, f"{own} imports {sorted(upward)}, which stand above it"


def test_packages_side_by_side_import_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in sources("llf_core"):
        graph.setdefault(package_of(path), set()).update(needs(path))
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle
    assert order.index("config") < order.index("stages") < order.index("cli")


@pytest.mark.parametrize("path", sources("llf_widgets/server"), ids=lambda path: path.name)
def test_the_server_reads_runs_only(path: Path) -> None:
    ours = {name for name in imported(path) if name.startswith(("llf_core.", "llf_widgets."))}
    allowed = (
        "llf_core.untrusted",
        "llf_core.redaction",
        "llf_core.lazy_exports",
        "llf_core.user_error",
        "llf_core.runs",
        "llf_core.remote.address",
        "llf_core.__version__",
        "llf_widgets.server",
        "llf_widgets.home",
        "llf_widgets.view_files",
        *SHARED_WITH_SERVER,
    )
    assert not {name for name in ours if not name.startswith(allowed)}


def test_what_a_declaration_names_stands_in_the_package_of_its_kind() -> None:
    homes = {
        "method": "methods",
        "modifier": "modifiers",
        "optimizer": "optimizers",
        "stage": "stages",
        "format": "data",
        "chat_engine": "chat",
        "metric": "metrics",
    }
    for key, one in all_declared().items():
        if one.implementation:
            assert one.implementation.startswith(f"llf_core.{homes[one.kind]}."), key


def run_python(*arguments: str, text: str = "") -> str:
    done = subprocess.run(  # what a test gives it
        [sys.executable, *arguments], input=text, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.stdout + done.stderr


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    show = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    return set(json.loads(run_python("-c", f"{code}\n{show}").splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("import llf_core.config, llf_core.runs, llf_core.rewards, llf_core.launch, llf_core.estimate", NOTEBOOK),
        ("import llf_core.metrics", NOTEBOOK),
        ("import llf_core.cli", NOTEBOOK),
        ("import llf_widgets", WIDGETS | {"jupyter_server"}),
        ("import llf_widgets as llf; llf.train; llf.attach", WIDGETS),
        ("import llf_widgets as llf; llf.Studio()", {"plotly"}),
        ("import llf_widgets as llf; llf.Monitor", set()),
        ("import llf_widgets.server", WIDGETS | {"IPython"}),
    ],
)
def test_what_opens_at_once_imports_nothing_large(code: str, more: set[str]) -> None:
    assert not loaded_after(code) & (HEAVY | more)


def test_ruff_bans_heavy_imports_where_they_must_not_be() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert set(ruff["flake8-tidy-imports"]["banned-module-level-imports"]) >= HEAVY
    freed = [where for where, codes in ruff["per-file-ignores"].items() if "TID253" in codes]
    assert not {where for where in freed if any(f"llf_core/{name}" in where for name in LIGHT)}
    assert not {where for where in freed if where.startswith("llf_widgets")}


@pytest.mark.parametrize("package", sorted(LIGHT))
def test_ruff_finds_a_heavy_import(package: str) -> None:
    probe = str(ROOT / "llf_core" / package / "probe.py")
    said = run_python("-m", "ruff", "check", "--stdin-filename", probe, "-", text="import torch\n")
    assert "TID253" in said
