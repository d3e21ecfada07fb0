"""How paths are shown."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llf_widgets.home import display_path, home_hash

AS_A_NUMBER = """
import os
from pathlib import Path
from llf_widgets.home import display_path
os.environ.pop("HOME", None)
os.setuid(54321)
print(display_path(Path("/data/x")))
"""


def test_a_home_whose_name_is_no_text_has_a_hash(monkeypatch, tmp_path):
    name = os.fsencode(tmp_path) + b"/h\xff"
    monkeypatch.setenv("LLF_HOME", os.fsdecode(name))
    assert home_hash() == hashlib.sha256(name).hexdigest()


def test_the_home_is_not_shown(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert display_path(Path("/home/somebody/.llf/runs")) == "~/.llf/runs"
    assert display_path(Path("/data/x")) == "/data/x"
    assert display_path(Path("/home/somebody")) == "~"


def test_a_home_behind_a_link_is_not_shown(monkeypatch, tmp_path):
    (tmp_path / "disk" / "somebody").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk" / "somebody")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in (tmp_path / "home", tmp_path / "disk" / "somebody"):
        assert display_path(folder / ".llf") == "~/.llf"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_user_without_a_home():
    """As in a container that runs under a number, which the list of users does not have."""
    done = subprocess.run([sys.executable, "-c", AS_A_NUMBER], check=True, capture_output=True, text=True)
    assert done.stdout == "/data/x\n"
