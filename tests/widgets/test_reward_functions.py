"""A reward function written in a cell of a real IPython shell judges a real run, and is mended in another cell."""

from __future__ import annotations

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import llf_widgets as llf
from llf_core.runs import RunReader


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return InteractiveShell(config=Config(HistoryManager={"enabled": False}))


@pytest.fixture
def cell(shell):
    """`cell(text)`: runs a cell; what it raises is raised here."""

    def run(text):
        shell.run_cell(text, store_history=True).raise_error()

    return run


SETUP = """
import re
import llf_widgets as llf

WORDS = re.compile("[aeiou]")
PATIENCE = 8

def vowels(text):
    return len(WORDS.findall(text))
"""
BROKEN = """
seen = []

@llf.reward
def clear(answer: str, level, **row) -> float:
    seen.append(answer)
    if len(seen) > PATIENCE:
        raise RuntimeError("out of patience")
    return vowels(answer) / max(len(answer), 1) + 0 * level
"""
MENDED = """
@llf.reward
def clear(answer: str, level) -> float:
    return vowels(answer) / max(len(answer), 1)
"""


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_from_a_cell_to_a_run_and_back(cell, shell, tiny_model_dir):
    shell.user_ns["config"] = {
        "model_name_or_path": str(tiny_model_dir),
        "stage": "grpo",
        "dataset": [{"question": f"Count to {n}.", "level": n} for n in range(4)],
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "top_p": 1.0,
        "top_k": 0,
        "use_cpu": True,
    }
    cell(SETUP)
    cell(BROKEN)
    cell("run = llf.train(config, rewards=[clear])\nrun.wait(progress=False)")
    run = shell.user_ns["run"]
    now = run.status()
    assert now.state == "failed", run.log(40)
    assert now.reason.startswith('In step 3, on the prompt "Count to ')
    assert "the reward function clear raised RuntimeError: out of patience in line " in now.reason
    assert "The training up to step 2 is saved." in now.reason
    source = (run.folder.code / "clear.py").read_text()
    assert "import re\n" in source
    assert "PATIENCE = 8\nseen = []\nWORDS = re.compile('[aeiou]', 32)\n" in source
    assert "def vowels(text):" in source
    assert "@llf" not in source

    cell(MENDED)
    cell("run.resume(rewards=[clear]).wait(progress=False)")
    assert run.state == "finished", run.log(40)
    assert RunReader(run.folder).metrics().steps("reward").tolist() == [1, 2, 3, 4]
    samples = [json.loads(line) for line in run.folder.samples.read_text().splitlines()]
    assert [one["step"] for one in samples if one["attempt"] == 2] == [3] * 4 + [4] * 4
    assert all(one["rewards"]["clear"] == one["reward"] for one in samples)
    assert 'llf.reward(name="clear")(clear)' in run.code()


def test_a_function_is_found_by_its_name(cell, shell, monkeypatch, tiny_model_dir):
    monkeypatch.setattr("llf_core.launch.launchers.launcher.start_supervisor", lambda *_: None)
    cell(SETUP)
    cell("@llf.reward(name='plain')\ndef f(answer):\n    return vowels(answer)")
    cell("%load_ext llf_widgets")
    cell(
        "run = llf.train({'dataset': 'llf_demo', 'stage': 'rloo', 'reward_functions': 'plain,format',"
        " 'per_device_train_batch_size': 8})"
    )
    names = {}
    exec((shell.user_ns["run"].folder.code / "plain.py").read_text(), names)
    assert names["plain"]("area") == 3


def test_a_value_that_cannot_be_handed_over_starts_no_run(cell, llf_home):
    cell(SETUP)
    cell("class Box:\n    pass\nbox = Box()\n@llf.reward\ndef f(answer):\n    return box.value")
    config = {"dataset": "llf_demo", "stage": "rloo", "per_device_train_batch_size": 8}
    with pytest.raises(ValueError, match="f uses box, a Box of the notebook, which cannot be passed to the trainer"):
        cell(f"llf.train({config!r}, rewards=[f])")
    assert not list(llf_home.glob("runs/*"))
    assert llf.reward.__module__ == "llf_core.rewards.decorator"
