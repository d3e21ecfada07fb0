"""The public names: those of the design, brought on first use, whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llf_core
import llf_widgets


def test_the_version_is_one():
    assert llf_widgets.__version__ == llf_core.__version__


@pytest.mark.parametrize("name", llf_widgets.__all__)
def test_every_public_name_is_there(name):
    assert getattr(llf_widgets, name) is getattr(llf_widgets, name)
    assert name in dir(llf_widgets)


@pytest.mark.parametrize("name", sorted(llf_widgets._HOMES))
def test_a_name_is_no_module_even_where_its_module_came_first(name):
    code = (
        f"import {llf_widgets._HOMES[name]}, llf_widgets, types\n"
        f"assert not isinstance(llf_widgets.{name}, types.ModuleType)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Studios'"):
        llf_widgets.Studios  # noqa: B018


def test_windows_is_refused_with_a_sentence():
    code = "import sys; sys.platform = 'win32'; import llf_widgets"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert "LLF does not run on Windows" in done.stderr.splitlines()[-1]
