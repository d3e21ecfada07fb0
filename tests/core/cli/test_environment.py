"""`llf env`, `llf version`, and a system that LLF does not run on."""

import json
import subprocess
import sys
from pathlib import Path

from llf_core import __version__

LLF = str(Path(sys.executable).with_name("llf"))


def test_version(llf):
    assert llf("version").output.strip() == __version__


def test_windows_is_refused_with_a_sentence(llf_home):
    """With what Windows lacks taken away, and its name given after the command line itself is loaded."""
    code = (
        "import sys, llf_core.cli; sys.platform = 'win32'; sys.modules['fcntl'] = None; "
        "sys.argv = ['llf', 'runs', 'list']; "
    )
    for act in ("llf_core.cli.main()", "import llf_core.launch.start"):
        done = subprocess.run([sys.executable, "-c", code + act], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "LLF does not run on Windows" in done.stderr.splitlines()[-1]


def test_env_tells_versions_and_home(llf, llf_home):
    facts = json.loads(llf("env", "--json").output)
    assert facts["llf"] == __version__
    assert "torch" in facts["packages"]
    assert str(llf_home) in json.dumps(facts)
