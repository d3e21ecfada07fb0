"""Answers of base and tuned model, made in a process of their own."""

import contextlib
import os
import sys
import threading
import time

import psutil
import pytest

from llf_core.evaluation.answers import Answer, TokenProgress, answer_in_child
from llf_core.evaluation.demo_report import side_by_side, stored_answers
from llf_core.evaluation.run_losses import losses_in_child
from llf_core.evaluation.worker_process import run_in_child
from llf_core.launch import Run
from llf_core.launch.environment import usable_cpus
from llf_core.launch.local_process import RUNTIME_VARIABLES
from llf_core.runs import RunReader
from llf_core.untrusted import visible
from llf_widgets.evaluation_calls import Answers
from tests.processes import has_ended


def test_base_and_tuned_answer_in_a_process_that_reads_no_module_beside_the_notebook(trained, tmp_path, monkeypatch):
    folder, _ = trained(max_steps=2)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "peft.py").write_text("raise SystemExit('the wrong peft')")
    monkeypatch.chdir(tmp_path / "beside")
    (tmp_path / "path" / "bitsandbytes").mkdir(parents=True)  # the tiny model is not quantized
    (tmp_path / "path" / "bitsandbytes" / "__init__.py").write_text("raise SystemExit('bitsandbytes is not needed')")
    path = os.pathsep.join([str(tmp_path / "path"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)
    heard = []
    prompts = ["What is 1 plus 2?", "A line\u2028and -- another\x85", "--"]
    answers = answer_in_child(folder.id, prompts, max_new_tokens=4, progress=lambda *told: heard.append(told))
    assert [one.prompt for one in answers] == prompts
    kept = [(row["prompt"], row["of"], row["text"]) for row in RunReader(folder).samples()]
    assert kept == [(one.prompt, of, getattr(one, of)) for one in answers for of in ("base", "tuned")]
    with folder.samples.open("a") as file:
        file.write('{"kind": "answer", "of": "base", "text": "without a prompt"}\n')
    assert stored_answers(Run(folder)) == answers
    assert all(one.base in side_by_side(answers) for one in answers if one.base.isalnum())
    assert [told for told in heard if told[1] == 0] == [
        ("Loading the base model", 0, 0),
        ("Answers of the base model, tokens", 0, 12),
        ("Loading the tuned model", 0, 0),
        ("Answers of the tuned model, tokens", 0, 12),
    ]


def test_an_answer_controls_no_terminal():
    answers = Answers([Answer("\x1b]0;title\x07", "\x1b[2J", "\u202eright")])
    shown = repr(answers)
    assert shown.splitlines()[2:] == [r"> \x1b]0;title\x07", r"\x1b[2J".ljust(44) + r"  \u202eright"]
    assert shown == side_by_side(answers) == visible(shown)


def test_a_process_with_a_model_has_a_trainers_environment(tmp_path, monkeypatch):
    """Without it, its threads spin while they wait for each other: three answers took five times as long."""
    (tmp_path / "told.py").write_text("import json, os; print(json.dumps(dict(os.environ)))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    told = run_in_child("told", home=tmp_path)
    assert told | RUNTIME_VARIABLES == told
    assert told["OMP_NUM_THREADS"] == str(usable_cpus())
    assert told["LLF_HOME"] == str(tmp_path)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert run_in_child("told")["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 40)", "terminated by signal 40"),
        ("print('{\"progress\": [1', end='', flush=True); import os; os.kill(os.getpid(), 9)", "terminated by SIGKILL"),
        ("print('Loading')", "printed no result, but Loading"),
        ("import os; os.write(1, b'Loading \\xff')", "printed no result, but Loading"),
    ],
)
def test_a_process_without_a_result_is_one_sentence(tmp_path, monkeypatch, code, message):
    (tmp_path / "silent.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=message):
        run_in_child("silent")


def test_a_process_is_ended_from_outside_with_what_it_started(tmp_path, monkeypatch):
    inner = "import sys, time; open(sys.argv[1], 'w').write('started'); time.sleep(300)"
    (tmp_path / "outer.py").write_text(
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}, {str(tmp_path / 'mark')!r}])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def end_later(end):
        def wait_and_end():
            while not (tmp_path / "mark").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.02)
            end()

        threading.Thread(target=wait_and_end, daemon=True).start()

    with pytest.raises(RuntimeError, match="terminated by SIGKILL"):
        run_in_child("outer", on_start=end_later)
    inner_pid = int((tmp_path / "pid").read_text())
    wait_gone = time.monotonic() + 120
    with contextlib.suppress(psutil.NoSuchProcess):
        while not has_ended(psutil.Process(inner_pid)):
            assert time.monotonic() < wait_gone
            time.sleep(0.02)


@pytest.mark.parametrize("prompt", ["a\0b", "\ud800"])
def test_a_prompt_that_no_process_takes_is_one_sentence(prompt):
    with pytest.raises(RuntimeError, match=r"\\x00b|\\ud800.*cannot be passed to a process"):
        run_in_child("llf_core.evaluation.answers", "--", "run", prompt)


def test_a_prompt_that_is_too_long_for_a_process_is_one_sentence():
    with pytest.raises(RuntimeError, match=r"has 3,000,\d+ bytes, more than the system passes on"):
        run_in_child("llf_core.evaluation.answers", "--", "run", "x" * 3_000_000)


@pytest.mark.usefixtures("warm_python", "llf_home")
@pytest.mark.parametrize("ask", [lambda: answer_in_child("20200101-000000-none", ["x"]), lambda: losses_in_child("no")])
def test_a_run_that_is_not_there_is_one_sentence(ask):
    with pytest.raises(RuntimeError, match=r"^[A-Z][a-z]+ [^:]*(run|none)"):
        ask()


def test_the_tokens_of_answers_are_told_now_and_then(monkeypatch):
    heard, clock = [], [0.0]
    monkeypatch.setattr("llf_core.evaluation.answers.time.monotonic", lambda: clock[0])
    told = TokenProgress("Answers", 192, lambda *one: heard.append(one))
    for _ in range(10):
        clock[0] += 0.1
        told(0, "a")
    assert heard == [("Answers", 0, 192), ("Answers", 3, 192), ("Answers", 6, 192), ("Answers", 9, 192)]


@pytest.mark.usefixtures("warm_python")
def test_a_run_without_output_says_so(make_run):
    with pytest.raises(RuntimeError, match="has no output yet"):
        answer_in_child(make_run().id, ["x"])


@pytest.mark.usefixtures("warm_python")
def test_no_prompts_are_one_sentence(make_run):
    run = make_run()
    run.output.mkdir()
    with pytest.raises(RuntimeError, match=r"^The list of prompts is empty\. Expected at least one\.$"):
        answer_in_child(run.id, [])
