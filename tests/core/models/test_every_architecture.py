"""Every architecture of the installed transformers that writes text, tiny: trained and loaded again, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests.core.models.every_architecture import METHODS, Outcome, page, particular
from tests.core.models.tiny_configs import causal_types, multimodal_types

ROOT = Path(__file__).parents[3]
HOURS = 4


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of each type and method; all are tried by one process, a fork each."""
    file = tmp_path_factory.mktemp("architectures") / "outcomes.json"
    command = [sys.executable, "-m", "tests.core.models.every_architecture", "--json", str(file)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=HOURS * 3600, stdout=subprocess.DEVNULL)
    return {(one["kind"], one["method"]): Outcome(**one) for one in json.loads(file.read_text())}


@pytest.mark.long
@pytest.mark.timeout(HOURS * 3600)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [*causal_types(), *multimodal_types()])
def test_it_trains_and_loads_again_or_is_refused_in_a_sentence(outcomes, kind, method):
    outcome = outcomes[kind, method]
    assert outcome.state in {"trained", "refused"}, (outcome.why, outcome.where)
    assert outcome.state == "trained" or outcome.why.endswith(".")
    if method == "full" and outcome.state == "trained":
        assert outcome.packing == "equal" or outcome.packing.endswith("."), outcome.packing
    for why in outcome.shown.values():
        assert why == "equal" or (why.startswith("refused: ") and why.endswith(".")), why


def test_the_page_has_a_row_for_every_architecture():
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    if f"architecture that transformers {transformers.__version__} maps" not in written:
        pytest.skip(f"The page was not written with transformers {transformers.__version__}.")
    listed = {line.split("`")[1] for line in written.splitlines() if line.startswith("| `")}
    assert listed == {*causal_types(), *multimodal_types()}


def test_the_page_counts_and_tells_why():
    made = page([Outcome("llama", "lora", "trained"), Outcome("llama", "full", "refused", why="No  such\nthing.")])
    assert "- LoRA: 1 trained." in made
    assert "| `llama` | trained | refused |  |  |" in made
    assert "- `llama`: No such thing.\n" in made


def test_a_page_keeps_the_tables_that_were_not_tried_again():
    first = page([Outcome("llama", "lora", "trained"), Outcome("t5", "lora", "refused", why="It is none.")])
    shown = {"image": "equal", "audio": "refused: No file."}
    second = page([Outcome("llava", "lora", "trained", shown=shown)], first)
    assert "| `llama` | trained | failed |  |  |" in second
    assert "| `llava` | trained | failed | equal | refused |  |  |" in second
    assert "- `llava`: audio: refused: No file." in second
    assert "`t5`" not in second.partition("## Properties")[0]


def test_the_page_tells_what_is_particular_about_some():
    written = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert written.endswith(f"\n{particular()}\n")
