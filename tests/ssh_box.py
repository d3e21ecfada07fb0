"""A real sshd on loopback with keys of its own, and `ssh` and `sftp` that know it as the host `box`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import end, processes_of

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")
SFTP_SERVER = next(
    (str(path) for path in map(Path, ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server")) if path.exists()),
    "internal-sftp",
)
ROOT = Path(__file__).parent.parent


class Box:
    """The other "machine": this one, with another LLF_HOME."""

    def __init__(self, place, home):
        self.place, self.home = place, home
        self.port = _free_port()
        self._server = None
        home.mkdir()
        (home / "venv").symlink_to(sys.prefix)
        self.make_host_key()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "user"], check=True)
        (place / "authorized").write_text((place / "user.pub").read_text())
        (place / "authorized").chmod(0o600)
        (place / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {place}/host\nPidFile none\n"
            f"AuthorizedKeysFile {place}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp {SFTP_SERVER}\n"
            f'SetEnv "LLF_HOME={home}" PYTHONPATH={ROOT} HF_HUB_OFFLINE=1\n'
        )
        self.trust_host_key()
        (place / "ssh_config").write_text(
            f"Host box\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {place}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {place}/known\n  GlobalKnownHostsFile none\n  IdentityAgent none\n"
        )
        programs = place / "bin"
        programs.mkdir()
        for name in ("ssh", "sftp"):
            more = f" -S {programs}/ssh" if name == "sftp" else ""
            script = f'#!/bin/sh\nexec {shutil.which(name)} -F {place}/ssh_config{more} "$@"\n'
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)

    def make_host_key(self):
        for path in self.place.glob("host*"):
            path.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.place / "host"], check=True)

    def trust_host_key(self):
        (self.place / "known").write_text(f"[127.0.0.1]:{self.port} {(self.place / 'host.pub').read_text()}")

    def start(self):
        command = [SSHD, "-D", "-e", "-f", self.place / "sshd_config"]
        self._server = subprocess.Popen(command, stderr=(self.place / "sshd.log").open("ab"))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._server.poll() is None, (self.place / "sshd.log").read_text()
            time.sleep(0.02)

    def cut(self):
        """Ends sshd and all of its connections."""
        processes = [psutil.Process(self._server.pid)]
        processes += [one for one in processes[0].children(recursive=True) if one.name().startswith("sshd")]
        end(processes)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The host `box`, whose sshd runs."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server")
    Path("/run/sshd").mkdir(exist_ok=True)
    place = tmp_path / "box"
    place.mkdir()
    box = Box(place, tmp_path / "home of [box]*")
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    box.start()
    yield box
    box.cut()
    end([*processes_of(box.home), *processes_of(os.environ["LLF_HOME"])])


@pytest.fixture
def until():
    """`until(fact)`: waits for it, at most two minutes; returns what it returned."""

    def wait(fact, seconds=120):
        end = time.monotonic() + seconds
        while not (value := fact()):
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.02)
        return value

    return wait
