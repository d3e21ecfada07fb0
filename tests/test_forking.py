"""The forked interpreter does what `python` does."""

import array
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import forking


@pytest.fixture(params=["forked", "real"])
def python(request, fork_server):
    return str(fork_server.python) if request.param == "forked" else sys.executable


def run(python, *arguments, **options):
    return subprocess.run([python, *arguments], capture_output=True, text=True, check=False, timeout=200, **options)


def test_code_gets_arguments_environment_folder_and_streams(python, tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.environ['LLF_SAID'], os.getcwd(), sys.stdin.read()); sys.exit(3)"
    done = run(python, "-P", "-c", code, "a b", env=os.environ | {"LLF_SAID": "x"}, cwd=tmp_path, input="in")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"['a b'] x {tmp_path} in\n"


def test_a_script_finds_what_lies_beside_it(python, tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside\nprint(__name__, beside.VALUE, sys.argv[1:])\n")
    assert run(python, str(script), "x").stdout == "__main__ 5 ['x']\n"


def test_an_error_is_a_trace_and_exit_1(python):
    done = run(python, "-c", "1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_module_is_run_as_main(python):
    done = run(python, "-P", "-m", "llf_core.data.inspect", "/nowhere.yaml")
    assert done.returncode != 0
    assert done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it_and_what_it_stands_for(python, number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(120) == -number
    until = time.monotonic() + 120
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not psutil.pid_exists(pid)


def test_a_signal_that_comes_close_behind_the_order_is_handed_on(fork_server, tmp_path):
    asked = {
        "arguments": ["-c", "import time; time.sleep(600)"], "executable": sys.executable, "env": dict(os.environ),
        "cwd": str(tmp_path), "umask": 0o22,
    }  # fmt: skip
    sent = json.dumps(asked).encode() + b"\n" + bytes([signal.SIGTERM])
    with socket.socket(socket.AF_UNIX) as connection, Path(os.devnull).open("r+b") as null:
        connection.settimeout(120)
        connection.connect(str(fork_server.python.with_name("socket")))
        streams = array.array("i", [null.fileno()] * 3)
        done = connection.sendmsg([sent], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(sent[done:])
        assert connection.recv(64) == b"-15\n"


def test_its_own_processes_are_of_its_kind(python):
    assert run(python, "-c", "import sys; print(sys.executable)").stdout == f"{python}\n"


def test_how_it_ended_is_told(python):
    assert run(python, "-c", "import os; os.kill(os.getpid(), 9)").returncode == -signal.SIGKILL


def test_a_supervisor_is_real_and_has_its_trainer_forked(warm_python, tiny_model_dir, tmp_path):
    from llf_core.launch import launch
    from llf_core.runs import read_status

    data = tmp_path / "rows.json"
    data.write_text(json.dumps([{"instruction": "Say it.", "output": "It is said."}] * 8))
    settings = {"model_name_or_path": str(tiny_model_dir), "dataset": str(data), "max_steps": 100_000, "threads": 1}
    run = launch(settings)
    until = time.monotonic() + 200
    while run.status().step == 0 and time.monotonic() < until:
        time.sleep(0.05)
    now = read_status(run.folder)
    supervisor, trainer = (psutil.Process(one.pid).cmdline() for one in (now.supervisor_process, now.trainer))
    server = str(Path(forking.__file__).with_name("server.py"))
    assert server not in supervisor
    assert server in trainer
    run.stop()
    assert run.wait(120, progress=False).state == "stopped"


def test_a_client_that_is_killed_before_it_has_asked_leaves_no_process(fork_server):
    server = psutil.Process(fork_server._process.pid)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(fork_server.python.parent / "socket"))
        client.sendall(b'{"arguments": ["-c", ')
        until = time.monotonic() + 120
        while not server.children():
            assert time.monotonic() < until
            time.sleep(0.01)
    while server.children():
        assert time.monotonic() < until
        time.sleep(0.01)
