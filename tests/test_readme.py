"""What README.md tells people to type exists, and every page is reached from it."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

import llf_widgets
from llf_core.cli import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    """Each command of the shell blocks, and each `make` and `llf` in running text, as words."""
    inline = re.findall(r"`((?:make|llf|pip) [^`]+)`", TEXT)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [words for line in [*lines, *inline] if (words := shlex.split(line, comments=True))]


def test_there_are_commands_to_check():
    assert {words[0] for words in commands()} >= {"make", "llf", "pip"}
    assert ["make", "demo"] in commands()
    assert ["make", "test"] in commands()


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_exists(words):
    if words[0] == "make":
        assert words[1] in TARGETS
    elif words[0] == "llf":
        command = typer.main.get_command(app)
        for word in words[1:]:
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"llf has no command {word}"
            command = command.commands[word]
    elif words[:2] == ["pip", "install"]:
        for extras in re.findall(r"llf\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= EXTRAS
    else:
        assert words[0] in {"git", "cd"}, f"teach this test {words[0]}"


@pytest.mark.parametrize("code", blocks("python"))
def test_code_uses_public_names(code):
    names = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "llf"
    }
    assert names
    assert names <= set(llf_widgets.__all__)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)", TEXT))
def test_a_link_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_every_page_is_reached_from_the_readme():
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        links = {
            (page.parent / target).resolve()
            for page in new
            for target in re.findall(r"\]\((?!https?:)([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        }
        assert not [link for link in links if not link.exists()]
        new = links - reached
    assert {*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} <= reached
