"""The command of a GPU kit: `python3 FOLDER --minutes 10 --out results`. It needs nothing but Python and pip.

Puts what is missing into an environment of its own beside what is there, from the kit's folder alone; runs LLF's tests
on the card, then its benchmark; and writes, whatever fails on the way, `log.txt` (as it goes), `kit.json` (each part's
command, exit code and seconds, after each part) and the benchmark's `gpu.json` and `gpu.md` into the folder of results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import site
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.kit.needed import offers, plan

if TYPE_CHECKING:
    from collections.abc import Sequence

WEIGHTS = {"install": 1, "tests": 3, "benchmark": 6}
"""How the time is divided; what a part leaves over goes to those after it."""
RESERVE = 20.0  # seconds at the end that no part gets: to end it, and to write what it came to
LAST_ROUND = 20.0  # seconds before its limit at which the benchmark should have ended by itself
GRACE = 5.0  # seconds between the signals that ask a part to end and that end it


def share(name: str, left: float, parts: Sequence[str]) -> float:
    """Seconds that a part gets of those that are left, the parts after it waiting."""
    coming = parts[parts.index(name) :]
    return max(0.0, left) * WEIGHTS[name] / sum(WEIGHTS[one] for one in coming)


class Kit:
    """One run of the command."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self.folder, self.asked = folder.resolve(), asked
        self.made = json.loads((folder / "kit.json").read_text())
        self.began = time.monotonic()
        self.out: Path = asked.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.work: Path = asked.work.resolve()
        self.source, self.venv = self.work / "source", self.work / "venv"
        self.log: TextIO = (self.out / "log.txt").open("a", buffering=1)
        self.parts = [name for name in WEIGHTS if name == "install" or name in asked.only]
        self.process: subprocess.Popen[str] | None = None
        self.found: dict[str, Any] = {
            "format": 1, "date": time.strftime("%Y-%m-%d %H:%M"), "commit": self.made["commit"],
            "minutes": asked.minutes, "rehearsal": asked.rehearse, "python": platform.python_version(),
            "machine": platform.platform(), "missing": [], "parts": [],
        }  # fmt: skip

    @property
    def left(self) -> float:
        """Seconds that the parts have left."""
        return float(self.asked.minutes * 60 - RESERVE - (time.monotonic() - self.began))

    @property
    def python(self) -> Path:
        """The interpreter that has everything."""
        return self.venv / "bin" / "python"

    def say(self, text: str) -> None:
        """Writes to the log and to the terminal."""
        self.log.write(text + "\n")
        with suppress(OSError):  # the log goes on where nobody reads the terminal
            print(text, flush=True)

    def record(self) -> None:
        """Writes what is known so far."""
        file = self.out / "kit.json"
        file.with_suffix(".new").write_text(json.dumps(self.found, indent=1) + "\n")
        file.with_suffix(".new").replace(file)

    def environment(self) -> dict[str, str]:
        """What the parts run in: no hub, no index; a card is not looked for in a rehearsal."""
        path = os.pathsep.join([str(self.python.parent), os.environ.get("PATH", "")])
        mine = {
            "PATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "NO_COLOR": "1",
            "LLF_HOME": str(self.work / "home"), "LLF_KIT_COMMIT": self.made["commit"],
        }  # fmt: skip
        if self.asked.rehearse:
            mine |= {"LLF_TEST_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        return os.environ | mine

    def run(self, name: str, command: Sequence[object], limit: float) -> int | None:
        """Runs one part to its end or to its limit, and keeps what it came to.

        Args:
            limit: seconds.

        Returns:
            The exit code; None where the part was ended at its limit.
        """
        words = [str(word) for word in command]
        self.say(f"== {name}, at most {limit:.0f} s: {' '.join(words)}")
        entry: dict[str, Any] = {"name": name, "command": words, "limit_s": round(limit, 1), "exit_code": None}
        self.found["parts"].append(entry)
        self.record()
        start = time.monotonic()
        self.process = subprocess.Popen(
            words, cwd=self.source, env=self.environment(), text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        reader = threading.Thread(target=self._follow, args=(self.process.stdout,), daemon=True)
        reader.start()
        timed_out = False
        try:
            self.process.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            timed_out = True
            self.end()
        reader.join(GRACE)  # what was left behind by a part may hold its output open
        code = None if timed_out else self.process.returncode
        self.process = None
        entry |= {"exit_code": code, "timed_out": timed_out, "seconds": round(time.monotonic() - start, 1)}
        self.record()
        how = "was ended at its limit" if timed_out else f"ended with {code}"
        self.say(f"== {name} {how} after {entry['seconds']} s\n")
        return code

    def _follow(self, output: TextIO) -> None:
        with suppress(ValueError, OSError):
            for line in output:
                self.say(line.rstrip("\n"))

    def end(self) -> None:
        """Ends the part that runs, with all of its processes that did not leave its session."""
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.process is None or self.process.poll() is not None:
                return
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)

    def install(self) -> None:
        """Makes the environment, unless it is there from an earlier run of this kit."""
        stamp, wanted = self.work / "installed", hashlib.sha256((self.folder / "kit.json").read_bytes()).hexdigest()
        needs = plan(self.made["requirements"], offers(self.folder / "wheels"), left_out=self.made["left_out"])
        self.found |= {"missing": needs.missing, "there": needs.there}
        self.found["installed"] = {name: offer.version for name, offer in needs.install.items()}
        if self.made["python"] != f"{sys.version_info.major}.{sys.version_info.minor}":
            needs.missing.append(
                f"Python {self.made['python']}, for which the wheels are; this is {platform.python_version()}. "
                f'Run the kit with that one, or make it anew with: make gpu-kit KIT_ARGS="--python X.Y"'
            )
        for sentence in needs.missing:
            self.say(f"missing: {sentence}")
        if stamp.exists() and stamp.read_text() == wanted:
            self.say(f"Everything is in {self.work} already.")
            return
        self.work.mkdir(parents=True, exist_ok=True)
        for folder in (self.source, self.venv):
            shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(self.folder / "source.tar.gz") as packed:
            packed.extractall(self.source, filter="data")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
        (packages,) = self.venv.glob("lib/python*/site-packages")
        there = "".join(f"import site; site.addsitedir({one!r})\n" for one in own_packages())
        (packages / "what_is_there.pth").write_text(there)
        listed = self.work / "wheels.txt"
        listed.write_text("".join(f"{offer.file}\n" for offer in needs.install.values()))
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--no-index", "--no-deps"]
        command += ["--no-compile", "--disable-pip-version-check", "--quiet", "--ignore-installed", "-r", listed]
        code = self.run("install", command, share("install", self.left, self.parts))
        if code == 0:
            stamp.write_text(wanted)

    def tests(self) -> None:
        """LLF's tests on the card."""
        command = [self.python, "-m", "pytest", "-m", "gpu", "tests/gpu", "-v", "-rs", "-p", "no:cacheprovider"]
        command += ["-p", "benchmarks.kit.at_once", "--tb=short"]
        self.run("tests", command, share("tests", self.left, self.parts))

    def benchmark(self) -> None:
        """LLF's benchmark, with the time that is left."""
        limit = share("benchmark", self.left, self.parts)
        minutes = max(0.0, limit - LAST_ROUND) / 60
        command: list[object] = [self.python, "-m", "benchmarks.gpu", "--minutes", f"{minutes:.2f}"]
        command += ["--results", self.out / "gpu.json", "--model", self.folder / "model", "--work", self.work / "bench"]
        command += ["--rehearse"] * self.asked.rehearse
        if self.asked.add:
            command += ["--add", self.asked.add.resolve()]
        self.run("benchmark", command, limit)

    def all(self) -> int:
        """Runs all parts; one that cannot even begin keeps nothing from those after it.

        Returns:
            1 where one of them failed or something is missing.
        """
        for name in self.parts:
            try:
                getattr(self, name)()
            except Exception as error:  # noqa: BLE001 - the parts after it are worth as much
                self.say(f"== {name} could not be run: {error!r}\n")
                self.found["parts"].append({"name": name, "exit_code": None, "error": repr(error)})
                self.record()
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        self.record()
        self.log.close()
        return int(bool(self.found["missing"]) or any(part["exit_code"] != 0 for part in self.found["parts"]))


def own_packages() -> list[str]:
    """The folders in which this Python finds packages; in a virtual environment, that one's too."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    listed = [Path(one) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return [str(one) for one in dict.fromkeys([*listed, *map(Path, folders)]) if one.is_dir()]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for everything together")
    parser.add_argument("--out", type=Path, default=Path("results"), help="the folder of log and results")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "llf-gpu-kit")
    parser.add_argument("--only", default="tests,benchmark", help="tests or benchmark alone")
    parser.add_argument("--add", type=Path, help="an earlier gpu.json of this card, which the benchmark adds to")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with the smallest models")
    asked = parser.parse_args(given)
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(WEIGHTS):
        parser.error(f"There is no part {', '.join(sorted(unknown))}. Expected tests, benchmark or both.")
    return asked


def main() -> None:
    """Runs the kit that this file belongs to."""
    kit = Kit(Path(__file__).parents[2], arguments())

    def stop(*_: object) -> None:
        kit.end()
        kit.say("== stopped from outside")
        kit.record()
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    raise SystemExit(kit.all())


if __name__ == "__main__":
    main()
