"""The commands that messages give can be run: they name packages of an index, and LLF by the place it came from."""

from __future__ import annotations

import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llf_core.install_command import install_command, llf_install_command

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", ["eval", "export", "modelscope", "serve", "train"])
def test_all_packages_of_an_extra_that_is_there(extra):
    given = {
        (canonicalize_name(one.name), one.specifier)
        for one in map(Requirement, shlex.split(install_command(extra))[2:])
    }
    wanted = map(Requirement, PROJECT["optional-dependencies"][extra])
    assert given == {(canonicalize_name(one.name), one.specifier) for one in wanted}


def test_only_what_is_missing(monkeypatch):
    real = metadata.distribution

    def without_peft(name):
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "distribution", without_peft)
    assert install_command("train") == 'pip install "peft>=0.17"'


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ('{"url": "file:///home/a%20b/llf", "dir_info": {}}', "pip install '/home/a b/llf'"),
        ('{"url": "https://host/llf.whl"}', "pip install https://host/llf.whl"),
        (None, "pip install LLF_FOLDER"),
    ],
)
def test_llf_itself_by_the_place_it_was_installed_from(monkeypatch, record, command):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return record

    monkeypatch.setattr(metadata, "distribution", lambda _: Installed())
    assert llf_install_command() == command
