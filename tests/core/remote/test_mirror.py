"""Runs of another host, over a real sshd on loopback: the same curves, requests, a broken link, a changed key."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from llf_core.config import RunConfig
from llf_core.launch import Run, attach
from llf_core.launch.local_process import start_supervisor
from llf_core.remote.address import AddressError, Host, parse_address
from llf_core.remote.open_mirror import list_remote
from llf_core.remote.ssh import RemoteError
from llf_core.runs import create_run
from tests.processes import processes_of, running

PROGRAM = Path(__file__).parents[1] / "launch" / "program.py"
COPIED = ("metrics.jsonl", "events.jsonl", "log.txt", "config.yaml")
SIDES = ("llf_core.remote.mirror", "llf_core.remote.on_host")


@pytest.fixture
def far(box):
    """`far(mode) -> Run`: a run of the box, as the box sees it."""

    def start(mode):
        folder = create_run("model_name_or_path: tiny\nstage: sft\n", "far", box.home)
        start_supervisor(folder, {"LLF_HOME": str(box.home)}, [sys.executable, str(PROGRAM), str(folder.path), mode])
        return Run(folder)

    return start


def contents(run):
    return {name: path.read_bytes() if (path := run.folder.path / name).exists() else b"" for name in COPIED}


def test_a_run_is_mirrored_steered_and_told_stale_until_the_link_heals(box, far, until, llf_home):
    run = far("train")
    until(lambda: run.state == "running")
    near = attach(f"ssh://box/{run.id[:15]}")
    assert near.folder.path == llf_home / "remote" / "box" / "runs" / run.id
    assert near.state == "running"
    assert attach(f"ssh://box/{run.id}").folder == near.folder
    until(lambda: len(running(processes_of(llf_home), SIDES[0])) == 1)
    box.cut()
    reason = until(lambda: near.status().reason)
    assert "No news from box since" in reason
    assert "Connection" in reason
    assert run.state == near.state == "running"
    sent = near.stop()
    assert len(list(near.folder.control.iterdir())) == 1
    box.start()
    until(lambda: near.status().reason is None)
    assert near.wait(120, progress=False).state == run.wait(120, progress=False).state == "stopped"
    until(lambda: near.status().mirror["complete"])
    assert [one["id"] for one in run.events() if one["type"] == "answer"] == [sent]
    assert contents(near) == contents(run)
    near.resume(command=[sys.executable, str(PROGRAM), str(run.folder.path), "brief"])
    assert near.wait(120, progress=False).state == run.status().state == "finished"
    assert (near.status().attempt, run.status().attempt) == (2, 2)
    until(lambda: contents(near) == contents(run))
    assert near.metrics().equals(run.metrics())
    assert not list(near.folder.control.iterdir())
    until(lambda: not running(processes_of(llf_home), SIDES[0]) and not running(processes_of(box.home), SIDES[1]))
    with pytest.raises(RuntimeError, match=r"box: .* has finished"):
        near.resume()


def test_a_real_run_has_the_same_curves_and_its_result_is_fetched(box, settings, until):
    from llf_core.training.session import run_attempt

    folder = create_run(RunConfig.load(yaml.safe_dump(settings)).yaml(defaults=True), "tiny", box.home)
    run, near = Run(folder), attach("ssh://box/last")
    with pytest.raises(RemoteError, match="has no result yet"):
        near.fetch()
    assert run_attempt(folder, 1) == 0
    until(lambda: near.state == "finished")
    assert len(near.metrics()) == 6
    assert near.metrics().equals(run.metrics())
    assert near.fetch() == near.output == near.folder.path / "output"
    files = {path.name: path.read_bytes() for path in run.output.iterdir()}
    assert {path.name: path.read_bytes() for path in near.output.iterdir()} == files
    assert "adapter_model.safetensors" in files
    page = list_remote(Host("box"), offset=0, limit=5, state=None, query=None, width=80)
    assert [row["id"] for row in page["runs"]] == [run.id]
    assert "finished" in page["lines"][1].split()


def test_a_kill_reaches_a_run_whose_supervisor_is_gone(far, until):
    run = far("busy")
    until(lambda: run.state == "running")
    near = attach(f"ssh://box/{run.id}")
    os.kill(run.status().supervisor["pid"], 9)
    assert near.kill().state == "failed"
    assert run.status().reason.startswith("Killed by the user")
    assert not run.status().trainer.alive()


def test_nothing_is_sent_to_a_host_whose_key_has_changed(box):
    box.cut()
    box.make_host_key()
    box.start()
    with pytest.raises(RemoteError, match="The host key of box has changed, so nothing was sent"):
        attach("ssh://box/last")
    (box.place / "known").write_text("")
    with pytest.raises(RemoteError, match="The host key of box is unknown"):
        attach("ssh://box/last")
    assert "Accepted" not in (box.place / "sshd.log").read_text()


def test_what_a_host_does_not_have_is_a_sentence(box):
    with pytest.raises(RemoteError, match=r"box: No run matches '20261202-nothing'"):
        attach("ssh://box/20261202-nothing")
    with pytest.raises(RemoteError, match=r"No connection to nowhere\.invalid: .*resolve"):
        attach("ssh://nowhere.invalid/last")
    (box.home / "venv").unlink()
    with pytest.raises(RemoteError, match="box has no LLF"):
        attach("ssh://box/last")


def test_the_name_of_a_run_reaches_no_shell(box, tmp_path):
    name = "-x'; touch pwned; $(touch pwned) `touch pwned` \"../..\nb"
    with pytest.raises(RemoteError, match="box: "):
        attach(f"ssh://box/{name}")
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("~/pwned").expanduser().exists()


@pytest.mark.parametrize(
    "address",
    [
        "ssh://-oProxyCommand=touch x/run",
        "ssh://-oProxyCommand=x",
        "ssh://a@-b/run",
        "ssh://-l@b/run",
        "ssh://box;id/run",
        "ssh://box id/run",
        "ssh://$(id)/run",
        "ssh://box:99999/run",
        "ssh://box:22:22/run",
        "ssh://../run",
        "ssh:///run",
        "ssh://box\n/run",
        "ssh://[::1/run",
        "box/run",
    ],
)
def test_an_address_that_a_program_could_take_for_something_else_is_refused(address):
    with pytest.raises(AddressError, match="Expected ssh://host/run"):
        parse_address(address)


def test_addresses():
    assert parse_address("ssh://box") == (Host("box"), "")
    assert parse_address("ssh://me@box.org:2222/run-1") == (Host("box.org", "me", "2222"), "run-1")
    assert parse_address("ssh://[::1]:22/a") == (Host("::1", "", "22"), "a")
    assert str(Host("::1", "me", "22")) == "me@[::1]:22"
