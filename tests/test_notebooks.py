"""Executes the tutorial as `make demo` does: the real model, the real trainer, the notebook that a reader gets."""

from __future__ import annotations

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient

from llf_core.launch import Run
from llf_core.runs import RunFolder
from tests.ssh_box import SSHD, box  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def embedded_model(llf_home: Path, request: pytest.FixtureRequest) -> Path:
    """Lets this test's LLF_HOME share the embedded model with earlier test runs, so that it is downloaded once."""
    kept = Path(request.config.cache.mkdir("llf"))
    llf_home.mkdir()
    for name in ("models", "locks"):
        (kept / name).mkdir(exist_ok=True)
        (llf_home / name).symlink_to(kept / name)
    return llf_home


def bundles(book: nbformat.NotebookNode) -> Iterator[dict[str, str]]:
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if output.output_type in ("display_data", "execute_result"):
                yield output["data"]


@pytest.mark.launches
@pytest.mark.timeout(1800)  # with the download on a slow line, and two other jobs on two cores
def test_the_demo_tunes_a_real_model_and_its_notebook_speaks_without_a_kernel(embedded_model: Path, tmp_path: Path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(
        ["make", "--no-print-directory", "-o", "install", f"BUILD={tmp_path}", "demo"],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stderr

    (folder,) = (embedded_model / "runs").iterdir()
    run = Run(RunFolder(folder))
    losses = run.metrics()["loss"].dropna()
    assert run.state == "finished"
    assert len(losses) >= 5
    assert losses.iloc[-3:].mean() < 0.8 * losses.iloc[:3].mean()

    samples = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    answers = {(sample["prompt"], sample["of"]): sample["text"] for sample in samples}
    prompts = {prompt for prompt, _ in answers}
    assert "What is the capital of France?" in prompts
    for prompt in prompts:
        assert answers[prompt, "base"] != answers[prompt, "tuned"]
        assert f"> {prompt}" in made.stdout  # side by side in the terminal
    assert made.stdout.rstrip().endswith("make lab")

    book = nbformat.read(tmp_path / "quickstart.ipynb", 4)
    assert "widgets" not in book.metadata
    summary = next(data for data in bundles(book) if "image/png" in data)
    assert "<table" in summary["text/html"]
    assert f"llf.Monitor('{folder.name}')" in summary["text/plain"]
    tables = [data["text/html"] for data in bundles(book) if "text/html" in data]
    assert any(answers["What is the capital of France?", "tuned"].split(".")[0] in table for table in tables)
    assert (tmp_path / "quickstart.ipynb").stat().st_size < 1_000_000


def test_tutorials_are_kept_without_outputs():
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        book = nbformat.read(path, 4)
        nbformat.validate(book)
        assert "widgets" not in book.metadata
        assert [cell for cell in book.cells if cell.get("outputs")] == []


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_data_tutorial_says_what_its_cells_show(embedded_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "data.ipynb", 4)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown = [data["text/plain"] for data in bundles(book)]
    assert any(text.startswith("(42, ") for text in shown)
    kinds = next(text for text in shown if "'dropped'" in text)
    assert all(f"'{kind}'" in kinds for kind in ("dropped", "cut", "doubled"))
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    assert "assistant │" in printed
    assert "⟦0⟧" in printed
    assert "cutoff_len: 256" in printed


def with_tiny_model(file: str, model: Path, smaller: dict[str, str]) -> nbformat.NotebookNode:
    """A tutorial with another model, and with other values in its code: old text to new text, each found once."""
    book = nbformat.read(REPOSITORY / "notebooks" / file, 4)
    name, whole = '"smollm2-135m-instruct"', "".join(cell.source for cell in book.cells)
    assert [part for part in smaller if whole.count(part) != 1] == []
    assert name in whole
    for cell in book.cells:
        for part, other in (smaller | {name: repr(str(model))}).items():
            cell.source = cell.source.replace(part, other)
    return book


def said(book: nbformat.NotebookNode) -> tuple[str, str]:
    """What its cells showed, and what they printed."""
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    return shown, "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_every_cell_of_the_live_tutorial_runs(tiny_model_dir: Path):
    """With a tiny model, which learns the form of the answers only: the next test has the real one."""
    smaller = {
        '"max_steps": 30': '"max_steps": 300',
        '"save_steps": 10': '"save_steps": 100',
        "branch(10": "branch(100",
    }
    book = with_tiny_model("live.ipynb", tiny_model_dir, smaller)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown, printed = said(book)
    for part in ("The evaluation loss is", "Learning rate 1e-3 → 5e-4 from step", "A prompt is watched from step"):
        assert part in shown
    steps = re.findall(r"^tuned +(\d+) │", printed, re.MULTILINE)
    assert {"100", "200", "300"} <= set(steps)
    assert len(ast.literal_eval(re.search(r"^\[\(.*\)\]$", printed, re.MULTILINE)[0])) == 3
    found = re.search(r"Losses\(base=([\d.]+), tuned=([\d.]+), examples=8\)", shown)
    assert float(found[2]) < float(found[1])
    assert re.search(r"Changed while running +3\b", shown)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_live_tutorial_does_what_it_says(embedded_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "live.ipynb", 4)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    for said in ("The evaluation loss is", "Learning rate 1e-3 → 5e-4 from step", "A prompt is watched from step"):
        assert said in shown
    assert re.search(r"tuned  30 │ 7 plus one is 8\.", printed)
    (_, top), (_, second), *_ = ast.literal_eval(re.search(r"^\[\(.*\)\]$", printed, re.MULTILINE)[0])
    assert top > 5 * second, "the row without sense tops the list"
    found = re.search(r"Losses\(base=([\d.]+), tuned=([\d.]+), examples=8\)", shown)
    assert float(found[2]) < 0.2 * float(found[1])
    assert re.search(r"Changed while running +3\b", shown)


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_tutorial_on_processes_and_machines_has_equal_losses(tiny_model_dir: Path, request: pytest.FixtureRequest):
    """With a tiny model, and the host `box` where there is an sshd."""
    if SSHD:
        request.getfixturevalue("box")
    book = with_tiny_model("distributed.ipynb", tiny_model_dir, {'"max_steps": 12': '"max_steps": 40'})
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown, printed = said(book)
    assert shown.count("'finished'") == 3
    assert re.search(r"Stopped at step \d+ of 40", shown)
    if SSHD:
        assert re.search(r"^finished$", printed, re.MULTILINE)
        assert "adapter_model.safetensors" in printed
    else:
        assert "then run this cell again" in printed
    differences = [float(one) for one in re.findall(r"^2\S+ +(\S+)$", shown, re.MULTILINE)]
    assert len(differences) == (4 if SSHD else 3)
    assert max(differences) < 2e-3  # 40 steps at a high learning rate; another share of the examples differs by 0.1


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_every_cell_of_the_chat_tutorial_runs(tiny_model_dir: Path):
    """With a tiny model, whose replies have no sense: the next test has the real one."""
    short = 'chat._settings = {**chat._settings, "max_tokens": "16"}\nchat.ask(questions[0])'
    smaller = {'["smollm2-135m-instruct"]': '["tiny-llama"]', "chat.ask(questions[0])": short}
    book = with_tiny_model("chat.ipynb", tiny_model_dir, smaller)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown, printed = said(book)
    assert re.search(r"KeptData\(name='sea', .*rows=12\)", shown)
    assert "So sing the whales" in printed  # in the first row of the file
    assert "'finished'" in shown
    assert re.search(r"^tiny-llama: .*^whales: ", printed, re.MULTILINE | re.DOTALL)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_chat_tutorial_trains_on_what_was_corrected(embedded_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "chat.ipynb", 4)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    assert re.search(r"KeptData\(name='sea', .*rows=12\)", shown)
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    base, tuned = re.search(r"^smollm2-135m-instruct: (.*)^whales: (.*)", printed, re.MULTILINE | re.DOTALL).groups()
    assert "whales" in tuned
    assert "whales" not in base


@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_every_cell_of_the_tutorial_on_preferences_runs(tiny_model_dir: Path):
    """With a tiny model, which learns no manners: the next test has the real one, and takes five minutes."""
    book = with_tiny_model("preferences.ipynb", tiny_model_dir, {})
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    assert re.search(r"mean reward -?[\d.]+ of the first answers, -?[\d.]+ of the last", printed)
    assert re.search(r"Win rate .*: \d+ won, \d+ equal, \d+ lost", shown)


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_tutorial_on_preferences_shows_reward_going_up(embedded_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "preferences.ipynb", 4)
    NotebookClient(book, timeout=1200, kernel_name="python3").execute()
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    first, last = re.search(r"mean reward (-?[\d.]+) of the first answers, (-?[\d.]+) of the last", printed).groups()
    assert float(last) > float(first) + 1
    won = re.search(r"Win rate .*: (\d+) won, (\d+) equal, (\d+) lost", shown)
    assert int(won[1]) >= 6


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_the_tutorial_on_evaluation_finds_what_was_learned_and_exports_it(
    embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "evaluate.ipynb", 4)
    NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.text for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    for metric in ("loss", "right_year"):
        assert re.search(rf"^{metric}: better: .*95 % interval .*40 examples$", printed, re.MULTILINE)
    assert re.search(r"^worse: -.* points, 95 % interval .*, 20 examples", printed, re.MULTILINE), "sums are forgotten"
    assert re.search(r"^19\d\d-\d\d-\d\d \w+, \w+$|^20\d\d-\d\d-\d\d \w+, \w+$", printed, re.MULTILINE)
    shown = "\n".join(data["text/plain"] for data in bundles(book))
    assert re.search(r"^9 checks passed\. .* Read back by transformers", shown, re.MULTILINE)
    assert (tmp_path / "dates-model" / "model.safetensors").is_file()


METHODS = ("LoRA", "QLoRA", "BAdam", "freeze", "full", "GaLore")


def run_methods(book: nbformat.NotebookNode, folder: Path) -> list[dict[str, float]]:
    """Executes the tutorial on methods in a folder; its figures of each run."""
    book.cells.append(nbformat.v4.new_code_cell("print(every_run.reset_index().to_json(orient='records'))"))
    NotebookClient(book, timeout=3400, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return json.loads(book.cells.pop().outputs[0].text)


@pytest.mark.long
@pytest.mark.usefixtures("warm_kernels")
@pytest.mark.launches
@pytest.mark.timeout(1800)
def test_every_cell_of_the_tutorial_on_methods_runs(tiny_model_dir: Path, tmp_path: Path):
    """With a tiny model, two seeds and two steps: the next test has the real one, and takes a quarter of an hour."""
    smaller = {
        "seeds = [1, 2, 3]": "seeds = [1, 2]",
        "steps = 8": "steps = 2",
        '"cutoff_len": 96': '"cutoff_len": 512',
        '"galore_rank": 64': '"galore_rank": 8',
        '"freeze_trainable_layers": 4': '"freeze_trainable_layers": 1',
    }
    book = with_tiny_model("methods.ipynb", tiny_model_dir, smaller)
    runs = run_methods(book, tmp_path)
    assert [(run["method"], run["seed"]) for run in runs] == [(name, seed) for name in METHODS for seed in (1, 2)]
    assert all(run["loss after"] != run["loss before"] and run["seconds"] > 0 for run in runs)
    last = list(bundles(book))[-1]
    assert last["text/plain"].startswith("llf.Compare({'LoRA': [")
    assert "from the lowest to the highest run" in last["text/html"]


@pytest.mark.long
@pytest.mark.launches
@pytest.mark.timeout(3600)
def test_the_tutorial_on_methods_says_what_its_runs_show(
    embedded_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLF_HOME", str(embedded_model))
    book = nbformat.read(REPOSITORY / "notebooks" / "methods.ipynb", 4)
    runs = run_methods(book, tmp_path)
    assert len(runs) == 18
    assert all(run["loss after"] < 0.75 * run["loss before"] for run in runs)
    assert all(run["exact before"] == 0 for run in runs)

    def mean(name: str, figure: str) -> float:
        return statistics.mean(run[figure] for run in runs if run["method"] == name)

    assert all(mean(name, "exact after") > 0.3 for name in ("LoRA", "QLoRA", "GaLore"))
    before = {name: mean(name, "loss before") for name in METHODS}
    quantized = before.pop("QLoRA")
    assert max(before.values()) - min(before.values()) < 0.01, "frozen weights are bfloat16, trained ones float32"
    assert min(abs(quantized - one) for one in before.values()) > 0.01, "4 bits change the base"
    memory = {name: mean(name, "memory, GB") for name in METHODS}
    assert max(memory, key=memory.get) == "full"
    assert max(memory[name] for name in ("LoRA", "QLoRA", "BAdam", "freeze")) < min(memory["full"], memory["GaLore"])
