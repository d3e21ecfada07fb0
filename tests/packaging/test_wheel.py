"""What the wheel holds, and what its base does in an environment without torch, Node and JupyterLab."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import tomllib
import urllib.request
import zipfile
from pathlib import PurePosixPath

import pytest

from llf_core import __version__
from tests.packaging.environments import ROOT

DATA = "llf-{version}.data/data/"


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_version_of_llf_core_is_that_of_wheel_and_panel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"llf-{__version__}.dist-info/METADATA").decode()
        panel = f"{DATA.format(version=__version__)}share/jupyter/labextensions/llf-labextension/package.json"
        assert json.loads(archive.read(panel))["version"] == __version__
    assert f"\nVersion: {__version__}\n" in metadata
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_file_of_the_packages_is_in_the_wheel(names):
    listed = subprocess.run(
        ["git", "ls-files", "llf_core", "llf_widgets"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    shared = {"llf_widgets/jupyter-config/llf_widgets.json"}
    assert tracked - set(names) - shared == set()
    assert {PurePosixPath(name).suffix for name in tracked} >= {".py", ".toml", ".jinja"}


def test_each_view_has_its_built_script_and_stylesheet(names):
    views = {path.parent.name for path in (ROOT / "labextension" / "widgets").glob("*/view.js")}
    assert views == {"chat", "compare", "evaluation", "examples", "export", "forms", "inspect", "monitor"}
    built = {name for name in names if name.startswith("llf_widgets/static/")}
    assert built == {f"llf_widgets/static/{view}.{kind}" for view in views for kind in ("css", "js")}


def test_the_panel_is_in_it_once_and_the_server_is_told(names):
    data = DATA.format(version=__version__)
    panel = [name for name in names if name.endswith("static/style.js")]
    assert panel == [f"{data}share/jupyter/labextensions/llf-labextension/static/style.js"]
    assert f"{data}share/jupyter/labextensions/llf-labextension/install.json" in names
    assert f"{data}share/jupyter/labextensions/llf-labextension/package.json" in names
    assert f"{data}etc/jupyter/jupyter_server_config.d/llf_widgets.json" in names


def test_nothing_else_is_in_it(names):
    tops = {name.split("/")[0] for name in names}
    assert tops == {"llf_core", "llf_widgets", f"llf-{__version__}.data", f"llf-{__version__}.dist-info"}
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]
    licences = [name for name in names if "/licenses/" in name]
    assert sorted(name.rsplit("/", 1)[1] for name in licences) == ["LICENSE", "NOTICE"]


def test_the_base_has_no_torch(base_only):
    absent = ("torch", "transformers", "datasets", "pandas", "peft", "trl", "jupyterlab")
    code = f"from importlib.util import find_spec; print([name for name in {absent} if find_spec(name)])"
    assert base_only(code).strip() == "[]"
    assert "base" in base_only("import llf_widgets; print(llf_widgets.__file__)")


def test_the_form_opens_in_the_base_and_start_says_what_to_install(base_only, tmp_path):
    code = """
import llf_widgets as llf
studio = llf.Studio()
try:
    studio.start()
except Exception as error:
    print(type(error).__name__, error)
print("form:", studio.message if hasattr(studio, "message") else "")
"""
    said = base_only(code, LLF_HOME=str(tmp_path))
    assert 'Run `pip install "accelerate>=1.5" "bitsandbytes' in said
    assert not (tmp_path / "runs").exists()


def test_check_says_what_to_install_in_the_base(base_only):
    said = base_only("import llf_widgets as llf; print(llf.check())")
    assert "Training needs torch, transformers, peft, trl, datasets, accelerate here." in said


def test_the_command_line_lists_in_the_base(base_only, tmp_path):
    code = "import sys; from llf_core.cli import main; sys.argv = ['llf', 'runs', 'list', '--json']; main()"
    assert json.loads(base_only(code, LLF_HOME=str(tmp_path))) == {"total": 0, "runs": []}


def test_llf_train_in_the_base_says_what_to_install(base_only, tmp_path):
    code = """
import sys
from llf_core.cli import main
sys.argv = ["llf", "train", sys.argv[1]]
try:
    main()
except SystemExit as end:
    print("exit code", end.code)
"""
    config = tmp_path / "config.yaml"
    config.write_text("model_name_or_path: smollm2-135m-instruct\ndataset: llf_demo\n")
    said = base_only(code.replace("sys.argv[1]", repr(str(config))), LLF_HOME=str(tmp_path / "home"))
    assert "failed" in said
    assert 'Training needs torch, which is not installed. Run pip install "accelerate>=1.5" "bitsandbytes' in said
    assert "exit code 1" in said
    assert "Traceback" not in said


def wait_for_port(port):
    """The server tells its address a moment before it listens there."""
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionRefusedError:
            assert time.monotonic() < until, f"nobody listens on {port}"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def server(base_only, tmp_path):
    """A Jupyter server of the base, found as a user's is: by its installed configuration alone."""
    env = os.environ | {
        "LLF_HOME": str(tmp_path / "home"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    command = [
        base_only.python,
        "-m",
        "jupyter_server",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"(http://127\.0\.0\.1:\d+/)\?token=(\w+)", line):
                    break
            else:
                pytest.fail("".join(said))
            wait_for_port(int(found[1].rstrip("/").rsplit(":")[-1]))
            yield found[1], found[2]
        finally:
            process.kill()


def test_the_server_finds_the_extension_and_lists_in_the_base(server):
    url, token = server

    def ask(route):
        request = urllib.request.Request(f"{url}llf/api/{route}", headers={"Authorization": f"token {token}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=120) as response:
            return json.load(response)

    assert ask("runs") == {"total": 0, "runs": []}
    version = ask("version")
    assert version["llf"] == __version__
    assert version["training"] is False
