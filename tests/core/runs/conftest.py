"""Run folders for the tests of this folder, and processes that die in the middle of writing them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llf_core.runs import create_run


@pytest.fixture
def folder():
    """A new run."""
    return create_run("model_name_or_path: tiny\nstage: sft\nfinetuning_type: lora\ndataset: sums\n", "a run")


@pytest.fixture
def format_1():
    """The home of a hand-made run of format 1. Never write to it."""
    return Path(__file__).parent / "fixtures" / "format-1"


@pytest.fixture
def python():
    """`python(source, *arguments, fault=None)`: runs Python text in a process of its own and returns it, done."""

    def run(source, *arguments, fault=None, timeout=200):
        env = os.environ | ({"LLF_FAULT": fault} if fault else {})
        return subprocess.run(
            [sys.executable, "-c", source, *map(str, arguments)],
            env=env, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    return run
