"""The tests of `tests/gpu` where there is no card."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.usefixtures("warm_python")
def test_they_are_collected_and_skipped_with_one_sentence():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LLF_", "PYTEST_"))}
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"],
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    skipped = [line for line in said.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(skipped) == 1, said.stdout
    found = re.fullmatch(
        r"SKIPPED \[(\d+)\] tests/gpu/conftest\.py:\d+: There is no CUDA device here; "
        r"LLF_TEST_DEVICE=cpu runs these tests on the CPU\.",
        skipped[0],
    )
    assert found, skipped[0]
    assert int(found[1]) >= 60
    assert re.search(rf"^{found[1]} skipped", said.stdout.splitlines()[-1])
