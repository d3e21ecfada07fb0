"""Results of evaluations: complete or not there, and readable whatever their files hold."""

import json
import os
import resource
import time
from pathlib import Path

import pytest

from llf_core.runs import folder as folders
from llf_core.runs.evaluations import (
    EvaluatedData,
    EvaluatedTarget,
    EvaluationWriter,
    ExampleResult,
    MetricValue,
    TokenLosses,
    copy_result,
    examples_of,
    find_result,
    model_evaluations,
    results_of,
    settings_key,
    token_losses_of,
)
from llf_core.untrusted import UnreadableError

TARGET = EvaluatedTarget("tuned", "adapter of step 3", "run", 3, "tiny", "0a1b")
DATA = EvaluatedData(("sums",), "f00d", 2, 1)
SETTINGS = {"limit": None, "metrics": ["rouge"]}
METRICS = (
    MetricValue("perplexity", "Perplexity", 7.5, 7.0, 8.25, 2, higher_is_better=False, by_source={"sums": 7.5}),
    MetricValue("rouge-l", "ROUGE-L", float("nan")),
)
EXAMPLES = (
    ExampleResult(1, "sums", ({"role": "user", "content": "1+1"},), "2", "3", {"rouge-l": 0.0}, 2, 4.5, 1, 1),
    ExampleResult(0, "sums", (), None, None, {}, 3, float("inf"), 2),
)
LOSSES = TokenLosses(1, ("2", "<end>"), (4.0, 0.5), "sums")
WRITE = """
import sys
from pathlib import Path
from llf_core.runs import RunFolder
from tests.core.runs.test_evaluations import write
write(RunFolder(Path(sys.argv[1])), many=int(sys.argv[2]))
"""


def write(place, target=TARGET, data=DATA, settings=SETTINGS, many=1):
    with EvaluationWriter(place, target, data, settings) as writer:
        for _ in range(many):
            for one in EXAMPLES:
                writer.example(one)
        writer.token_losses(LOSSES)
        return writer.finish(METRICS, 1.5, 40)


def test_a_result_is_read_as_it_was_written(folder):
    written = write(folder)
    (read,) = results_of(folder)
    assert repr(read) == repr(written)  # by text, since NaN differs from itself
    assert (read.target, read.data, read.settings, read.problem) == (TARGET, DATA, SETTINGS, "")
    assert read.metric("perplexity") == METRICS[0]
    assert read.metric("rouge-l").value != read.metric("rouge-l").value
    assert examples_of(read) == list(EXAMPLES)
    assert [one.loss for one in examples_of(read)] == [2.25, float("inf")]
    assert list(token_losses_of(read)) == [LOSSES]
    assert {oct(path.stat().st_mode & 0o777) for path in read.folder.iterdir()} == {"0o600"}
    assert oct(read.folder.stat().st_mode & 0o777) == "0o700"


def test_results_are_listed_newest_first_and_found_by_what_was_measured(folder):
    first, second = write(folder), write(folder, settings=SETTINGS | {"limit": 5})
    (folder.evaluations / first.id).rename(folder.evaluations / f"20200101-000000-{first.id[-8:]}")
    found = results_of(folder)
    assert [one.id[:8] for one in found] == [second.id[:8], "20200101"]
    assert find_result(folder, "0a1b", settings_key(SETTINGS), "f00d").id == found[1].id
    for other in (
        ("ffff", settings_key(SETTINGS), "f00d"),
        ("0a1b", "other", "f00d"),
        ("0a1b", second.settings_key, ""),
    ):
        assert find_result(folder, *other) is None


def test_a_copy_has_the_target_of_its_run_and_the_time_of_the_original(folder, tmp_path):
    place = model_evaluations("0123456789abcdef")
    assert place == folders.home() / "evaluations" / "0123456789abcdef"
    original = write(place)
    copied = copy_result(original, folder, EvaluatedTarget("run@base", run=folder.id, weights="0a1b"))
    assert (copied.made, copied.target.name, copied.metrics[0]) == (original.made, "run@base", METRICS[0])
    assert examples_of(copied) == examples_of(original)
    assert [one.id for one in results_of(folder)] == [copied.id]
    with pytest.raises(ValueError, match="not the key of a model"):
        model_evaluations("../runs")


def damage(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), "evaluation.json is missing."),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "evaluation.json is not valid"),
        (lambda path: path.write_text("[]"), "the file is not an object"),
        (lambda path: damage(path, lambda one: one.update(version=2)), "version is 2, expected 1"),
        (lambda path: damage(path, lambda one: one["metrics"][0].update(value="high")), "value is not a number"),
        (lambda path: damage(path, lambda one: one["target"].update(step=-1)), "step is not a number of at least 0"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "is a link"),
        (lambda path: path.write_bytes(b" " * (2 << 20)), "Expected at most 1,048,576"),
    ],
)
def test_a_damaged_result_is_listed_with_its_reason(folder, change, reason):
    good, bad = write(folder), write(folder)
    change(bad.folder / "evaluation.json")
    found = {one.id: one for one in results_of(folder)}
    assert reason in found[bad.id].problem
    assert not found[good.id].problem
    assert find_result(folder, "0a1b", settings_key(SETTINGS), "f00d").id == good.id


def test_damaged_lines_cost_only_their_example(folder):
    result = write(folder)
    path = result.folder / "examples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"index": "one"}\n', b"[]\n", b"\xff\n", lines[1][:-9]]))
    assert examples_of(result) == [EXAMPLES[0]]
    (result.folder / "token_losses.jsonl").write_text('{"index": 0, "tokens": ["a"], "losses": []}\n')
    assert list(token_losses_of(result)) == []


@pytest.mark.parametrize("point", ["result.line", "result.written"])
def test_of_a_killed_process_nothing_is_listed(folder, python, point):
    complete = write(folder)
    assert python(WRITE, folder.path, 1, fault=f"{point}:1").returncode == -9
    assert [one.id for one in results_of(folder)] == [complete.id]
    (left,) = folder.evaluations.glob(".new-*")
    write(folder)
    assert left.is_dir(), "it may be written at this moment"
    for one in (*left.iterdir(), left):
        os.utime(one, (time.time() - 90_000,) * 2)
    write(folder)
    assert not left.exists()


def test_a_full_disk_leaves_nothing_behind(folder):
    complete = write(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # Python ignores SIGXFSZ, so a write raises OSError
    try:
        with pytest.raises(OSError, match="File too large"):
            write(folder, many=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [one.name for one in folder.evaluations.iterdir()] == [complete.id]
    assert results_of(folder.path / "nothing") == []


def test_a_number_of_hundreds_of_digits_costs_only_its_example(folder):
    result = write(folder)
    line = json.loads((result.folder / "examples.jsonl").read_bytes().splitlines()[0]) | {"tokens": 10**400}
    (result.folder / "examples.jsonl").write_text(json.dumps(line) + "\n")
    assert examples_of(result) == []


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent / "data")])
def test_what_no_reader_would_find_is_not_written(folder, make):
    folder.data.mkdir()
    make(folder.evaluations)
    with pytest.raises(UnreadableError, match=r"evaluations is a (file|link)\. Expected a folder"):
        write(folder)
    assert not list(folder.data.iterdir())
