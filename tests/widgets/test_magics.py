from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from llf_core.runs import RunWriter, create_run


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "llf_widgets")
    return shell


@pytest.fixture
def run(llf_home):
    folder = create_run("model_name_or_path: m\n", "tiny", llf_home)
    writer = RunWriter(folder)
    writer.start_heartbeat(0.1)
    writer.status(state="running", step=3, total=9)
    yield folder
    writer.close("finished")


def test_runs_lists_id_state_and_steps(shell, run, capsys):
    shell.run_line_magic("llf", "runs")
    assert capsys.readouterr().out.split() == [run.id, "running", "3", "of", "9", "tiny"]


def test_a_name_does_not_control_the_terminal(shell, llf_home, capsys):
    create_run("model_name_or_path: m\n", "a\x1b[31mred", llf_home)
    shell.run_line_magic("llf", "runs")
    assert "\x1b" not in capsys.readouterr().out


def test_no_runs_is_said(shell, capsys):
    shell.run_line_magic("llf", "runs")
    assert capsys.readouterr().out == "No runs yet.\n"


@pytest.mark.parametrize(("command", "request_type"), [("stop", "stop"), ("checkpoint", "checkpoint")])
def test_requests_land_in_the_newest_run(shell, run, capsys, command, request_type):
    shell.run_line_magic("llf", command)
    (request,) = run.control.iterdir()
    assert f'"type":"{request_type}"' in request.read_text().replace(" ", "")
    assert capsys.readouterr().out.startswith(f"{run.id} ")


def test_monitor_returns_the_view(shell, run):
    view = shell.run_line_magic("llf", f"monitor {run.id}")
    assert view.run_id == run.id
    view.close()


def test_a_chat_with_what_is_no_model_is_a_usage_error(shell):
    for line in ("no-such-model", "a b c d e", '"'):
        with pytest.raises(UsageError):
            shell.run_cell_magic("llf_chat", line, "Why?")
    with pytest.raises(UsageError, match="No runs yet"):
        shell.run_line_magic("llf", "chat")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("monitor 20200101-000000-none", "No run 20200101-000000-none in "),
        ("stop ../../etc", "is not a run id"),
        ("stop", "No runs yet"),
        ("fly", "is not a command"),
        ("stop a b", "is not a command"),
        ('stop "a', '^stop "a has a quotation mark without its partner'),
    ],
)
def test_what_can_be_mended_is_one_sentence(shell, line, says):
    with pytest.raises(UsageError, match=says):
        shell.run_line_magic("llf", line)


def test_help_names_every_command(shell, capsys):
    from llf_widgets.magics import COMMANDS

    shell.run_line_magic("llf", "")
    told = capsys.readouterr().out
    assert all(f"%llf {name}" in told for name in COMMANDS if name != "help")


def test_train_starts_what_the_cell_says_and_shows_it(shell, run, monkeypatch):
    from llf_core.launch import Run

    given = []

    def train(config):
        given.append(config)
        return Run(run)

    monkeypatch.setattr("llf_widgets.start.train", train)
    shell.run_cell_magic("llf_train", "mine", "stage: sft\n")
    assert given == ["stage: sft\n"]
    assert shell.user_ns["mine"].id == run.id


def test_a_supervisor_that_does_not_start_is_one_sentence(shell, monkeypatch):
    def train(_):
        raise RuntimeError("The run's supervisor did not start.")

    monkeypatch.setattr("llf_widgets.start.train", train)
    with pytest.raises(UsageError, match="supervisor did not start"):
        shell.run_cell_magic("llf_train", "", "stage: sft\n")


def test_train_with_a_bad_config_is_one_sentence(shell):
    with pytest.raises(UsageError, match="lora_rnk"):
        shell.run_cell_magic("llf_train", "", "stage: sft\nlora_rnk: 8\n")
    with pytest.raises(UsageError, match="expected a variable name"):
        shell.run_cell_magic("llf_train", "not a name", "stage: sft\n")
