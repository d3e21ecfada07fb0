"""Tests that train on a CUDA card, by the real trainer and a tiny real model.

`LLF_TEST_DEVICE=cpu` runs the same tests on the CPU: a rehearsal, after which nothing but the card is new.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from tests.attempts import data_file, make_run, trained
from tests.attempts import settings as short_run

__all__ = ["data_file", "make_run", "short_run", "trained"]

ON_CPU = os.environ.get("LLF_TEST_DEVICE") == "cpu"
WHY = "There is no CUDA device here; LLF_TEST_DEVICE=cpu runs these tests on the CPU."
# A card is often had for minutes: what most depends on it comes first, what takes longest last.
ORDER = (
    "test_devices", "test_attention", "test_precision", "test_stages", "test_memory", "test_decoding", "test_resume",
    "test_monitor", "test_processes", "test_compile", "test_others",
)  # fmt: skip
QUESTIONS = [f"What is {a} plus {b}?" for a in range(6) for b in range(4)]


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and orders them."""
    here = Path(__file__).parent
    places = [place for place, item in enumerate(items) if item.path.parent == here]
    mine = sorted((items[place] for place in places), key=lambda item: ORDER.index(item.path.stem))
    for place, item in zip(places, mine, strict=True):
        item.add_marker(pytest.mark.gpu)
        items[place] = item


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips everything where there is no device to test: from one place, so that one line says so."""
    if not ON_CPU and not torch.cuda.is_available():
        pytest.skip(WHY)


@pytest.fixture
def note(pytestconfig, request):
    """`note(text)`: a line that is shown at once, also of a session that is ended before its time."""
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"{request.node.name}: {text}")

    return say


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    return torch.device("cpu") if ON_CPU else torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def dtypes(device):
    """What the fast kernels of the device compute in, and what they are compared with beside it."""
    if device.type == "cpu":
        return (torch.float32, torch.bfloat16)
    return (torch.float32, torch.float16, *((torch.bfloat16,) if torch.cuda.is_bf16_supported() else ()))


@pytest.fixture
def settings(short_run):
    """A config of six steps on the device under test, without a checkpoint on the way."""
    return {**short_run, "save_steps": 100, **({"use_cpu": True} if ON_CPU else {})}


@pytest.fixture
def rows(tmp_path):
    """`rows(kind) -> path`: 24 examples of what a stage learns from."""

    def write(kind: str) -> str:
        made = {
            "answers": [{"instruction": q, "output": f"It is {i}."} for i, q in enumerate(QUESTIONS)],
            "pairs": [
                {"instruction": q, "chosen": f"It is {i}." + " Sure." * (i % 3), "rejected": "No idea" + "!" * i}
                for i, q in enumerate(QUESTIONS)
            ],
            "judged": [
                {"instruction": q, "output": f"It is {i}." if i % 2 else "No idea" + "!" * i, "kto_tag": bool(i % 2)}
                for i, q in enumerate(QUESTIONS)
            ],
            "prompts": [{"instruction": q + " Say it." * (i % 3)} for i, q in enumerate(QUESTIONS)],
        }[kind]
        path = tmp_path / f"{kind}.json"
        path.write_text(json.dumps(made))
        return str(path)

    return write


@pytest.fixture
def precise(monkeypatch):
    """`precise(dtype)`: what the device is found to compute in where a config leaves it open."""

    def choose(dtype: str) -> None:
        monkeypatch.setattr("llf_core.models.device._precision", lambda *_: (dtype, f"{dtype}."))

    return choose


def resolved(folder) -> dict:
    """What a run's `resolved.yaml` says."""
    return yaml.safe_load(folder.resolved.read_text())


def losses(folder, name="loss") -> list[float]:
    """What a run has logged, in the order of its steps."""
    from llf_core.runs import RunReader

    return RunReader(folder).metrics().values(name).tolist()


def events(folder, kind: str) -> list[dict]:
    """A run's events of one type."""
    found = [json.loads(line) for line in folder.events.read_text().splitlines()]
    return [event for event in found if event["type"] == kind]
