"""What env.json says, and that asking costs nothing heavy."""

import json
import subprocess
import sys

import pytest

from llf_core import __version__
from llf_core.config import RunConfig
from llf_core.launch import environment
from llf_core.launch.environment import describe, git_state, packages, start_facts


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, on a machine where git may take its time."""
    monkeypatch.setattr(environment, "GIT_SECONDS", 120.0)
    for command in (
        ["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):  # fmt: skip
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_git_state(repository, tmp_path_factory):
    state = git_state(repository)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (repository / "f").write_text("x")
    assert git_state(repository)["dirty"] is False  # untracked: a notebook's folder is full of it
    subprocess.run(["git", "add", "f"], cwd=repository, check=True)
    assert git_state(repository)["dirty"] is True
    assert git_state(tmp_path_factory.mktemp("outside")) is None


def test_a_git_config_in_another_encoding_is_read(repository):
    with (repository / ".git" / "config").open("ab") as file:
        file.write(b'[user]\n\tname = "Andr\xe9"\n')
    assert git_state(repository)["dirty"] is False


def test_a_broken_repository_ends_no_start(repository):
    (repository / ".git" / "index").write_bytes(b"no index")
    state = git_state(repository)
    assert len(state["commit"]) == 40
    assert state["dirty"] is None


def test_no_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(repository) is None


def test_start_facts_are_the_contracts(monkeypatch, repository):
    monkeypatch.chdir(repository)
    config = RunConfig.load({"model_name_or_path": "smollm2-135m-instruct", "dataset": "x", "threads": 3, "seed": 5})
    facts = start_facts(config, {"path": "a.ipynb", "cell": "llf.train()"}, "abc")
    assert set(facts) == {
        "llf", "python", "platform", "packages", "device", "command", "cwd", "notebook", "git", "data", "seed",
        "threads",
    }  # fmt: skip
    assert (facts["llf"], facts["seed"], facts["threads"]) == (__version__, 5, 3)
    assert facts["data"] == {"fingerprint": "abc"}
    assert facts["notebook"]["path"] == "a.ipynb"
    assert facts["device"]["type"] == "cpu"
    assert facts["device"]["memory"] > 1e8
    json.dumps(facts, allow_nan=False)


def test_no_environment_variable_is_told(monkeypatch, repository):
    monkeypatch.setenv("HF_TOKEN", "hf_secret123")
    monkeypatch.chdir(repository)
    config = RunConfig.load({"model_name_or_path": "smollm2-135m-instruct", "dataset": "x"})
    assert "hf_secret123" not in json.dumps([start_facts(config), describe()])


def test_versions_are_those_installed():
    import transformers

    assert packages()["transformers"] == transformers.__version__
    assert describe()["packages"] == packages()


def test_nothing_heavy_is_imported():
    heavy = ["torch", "transformers", "datasets", "pandas", "pyarrow"]
    source = (
        "import sys\nfrom llf_core.launch import Run, attach, launch, active_runs, free_bytes\n"
        "from llf_core.launch.environment import describe\ndescribe()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("how", ["core.fsmonitor", "filter.evil.clean", "filter.evil.process"])
def test_a_repository_that_came_with_a_notebook_runs_no_program(repository, tmp_path, how):
    mark = tmp_path / "it-ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    program.chmod(0o755)
    (repository / "a.py").write_text("y = 1\n")
    subprocess.run(["git", "add", "a.py"], cwd=repository, check=True)
    subprocess.run(["git", "config", how, str(program)], cwd=repository, check=True)
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / "a.py").write_text("y = 3\n")
    state = git_state(repository)
    assert len(state["commit"]) == 40
    assert state["dirty"] is None
    assert not mark.exists()
    subprocess.run(["git", "status"], cwd=repository, check=False, capture_output=True)
    assert mark.exists()  # the trap works
