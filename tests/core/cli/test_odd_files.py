"""Commands on a run with something odd in the place of a file: a sentence, never a trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from llf_core import cli, runs
from llf_core.data import dump_examples
from llf_core.user_error import BAD_CONFIG
from tests.odd_files import put, run_without_room


@pytest.mark.parametrize("kind", ["pipe", "link out", "folder", "huge"])
@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl", "events.jsonl", "log.txt", "config.yaml", "code"])
def test_show_and_list_end_in_a_sentence(monkeypatch, capsys, name, kind):
    folder = runs.create_run("model_name_or_path: tiny\nstage: sft\ndataset: sums\n", "spoilt")
    put(folder, name, kind)
    for arguments in (["list"], ["show", folder.id], ["show", folder.id, "--code"]):
        monkeypatch.setattr(sys, "argv", ["llf", "runs", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        said = capsys.readouterr()
        assert "root:x:0" not in said.out + said.err
        assert said.out.strip() or said.err.strip()


def test_a_finding_without_a_message_hides_no_run(monkeypatch, capsys):
    folder = runs.create_run("model_name_or_path: tiny\nstage: sft\ndataset: sums\n", "spoilt")
    folder.events.write_text("".join(f'{{"type": "finding", "message": {said}}}\n' for said in (5, '"It is seen."')))
    monkeypatch.setattr(sys, "argv", ["llf", "runs", "show", folder.id])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "Found        It is seen.\n" in capsys.readouterr().out


def test_code_that_is_no_python_is_a_sentence(monkeypatch, capsys):
    folder = runs.create_run("model_name_or_path: llf/smollm2-135m-instruct\nstage: sft\ndataset: llf_demo\n", "spoilt")
    put(folder, "code/mine.py", "deep")
    monkeypatch.setattr(sys, "argv", ["llf", "runs", "show", folder.id, "--code"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "is not Python" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["x" * 5000, "a " * 30])
def test_a_search_that_is_too_long_ends_in_a_sentence(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["llf", "runs", "list", "--query", words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == BAD_CONFIG
    assert "Expected at most" in capsys.readouterr().err


def test_examples_are_not_written_to_a_pipe_that_nobody_reads(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device") as error:
        dump_examples(None, tmp_path / "pipe")  # type: ignore[arg-type]
    assert error.value.errno == errno.ENXIO


def test_texts_that_no_terminal_writes_hide_no_run():
    folder = runs.create_run('model_name_or_path: "a\\uD800\\u202E"\nstage: sft\ndataset: sums\n', "spoilt")
    text = folder.meta.read_text().replace("spoilt", r"\ud800")
    folder.meta.write_text(text)
    (folder.path.parent / os.fsdecode(b"\xff\xfe")).mkdir()
    for arguments in (["list"], ["list", "--json"], ["show", folder.id], ["show", folder.id, "--code"]):
        command = [sys.executable, "-c", "from llf_core.cli import main; main()", "runs", *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        assert "\N{RIGHT-TO-LEFT OVERRIDE}".encode() not in done.stdout
        assert done.stdout.strip()


@pytest.mark.parametrize("arguments", [["version"], ["runs", "list"], ["runs", "list", "--json"], ["env"], ["--help"]])
def test_an_output_without_room_ends_in_a_sentence(tmp_path, arguments):
    command = [sys.executable, "-c", "from llf_core.cli import main; main()", *arguments]
    done = run_without_room(command, tmp_path / "output")
    assert done.returncode == 1
    assert "The output cannot be written: File too large." in done.stderr


@pytest.mark.parametrize("inside", ["tempfile.gettempdir", "terminal.in_a_sentence()(tempfile.gettempdir)"])
def test_a_system_without_a_temporary_folder_is_told_in_a_sentence(tmp_path, inside):
    code = f"import tempfile; from llf_core.cli import application, terminal; application.app = {inside}"
    done = run_without_room([sys.executable, "-c", f"{code}; application.main()"], tmp_path / "output")
    assert done.returncode == 1
    assert done.stderr.startswith("Error No usable temporary directory found in ")
    assert "Traceback" not in done.stderr
    assert "set TMPDIR to a folder that can be written." in " ".join(done.stderr.split())


@pytest.mark.parametrize("arguments", [["runs", "clean", "--yes"], ["runs", "list"], ["demo", "--report"]])
def test_a_home_that_the_system_refuses_ends_in_a_sentence(monkeypatch, capsys, arguments):
    monkeypatch.setenv("LLF_HOME", "/tmp/" + "x" * 5000)
    monkeypatch.setattr(sys, "argv", ["llf", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "File name too long" in said
    assert len(said) < 1000
