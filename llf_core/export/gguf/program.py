"""Starts the processes that read a GGUF file, with llama.cpp or transformers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config.did_you_mean import did_you_mean
from llf_core.export.request import ExportError
from llf_core.install_command import install_command
from llf_core.launch.local_process import computing_environment
from llf_core.launch.supervisor import signal_name
from llf_core.runs.formatting import duration
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Step = Callable[[int, int], object]

STEP = re.compile(r"step ([0-9]+) ([0-9]+)")

TIMED_SECONDS = 5.0
"""Seconds after which the remaining time is shown."""
PACKAGE = "llama_cpp_py_sync"
LLAMA_CPP = "llf_core.export.gguf.llama_process"
TRANSFORMERS = "llf_core.export.gguf.transformers_process"


def check_installed() -> None:
    """Check that llama.cpp is installed."""
    if find_spec(PACKAGE) is None:
        raise ExportError(
            "llama.cpp, which quantizes GGUF files and reads them back, is not installed.",
            f"Run {install_command('export')}, then export again.",
        )


def quantize(gguf: Path, target: Path, name: str, threads: int) -> None:
    """Quantize a GGUF file of 16 or 32 bits by llama.cpp to one of `FILE_TYPES`."""
    job = {"task": "quantize", "gguf": str(gguf), "target": str(target), "file_type": FILE_TYPES[name]}
    run(LLAMA_CPP, job | {"threads": threads}, f"quantized to {name}")


def no_step(_done: int, _total: int) -> None:
    """Report no steps."""


def steps_told(progress: Callable[[str, int, int], object], what: str) -> Step:
    """Pass on the steps of another process with a description of its work and, after some seconds, the time left."""
    first: list[tuple[float, int]] = []

    def step(done: int, total: int) -> None:
        now = time.monotonic()
        begun, before = first[0] if first else (now, done)
        first[:] = [(begun, before)]
        known = now - begun > TIMED_SECONDS and done > before
        left = (now - begun) / (done - before) * (total - done) if known else 0
        progress(f"{what}, about {duration(left)} left" if known and done < total else what, done, total)

    return step


def run_steps(command: Sequence[str], step: Step, **options: Any) -> tuple[int, str]:
    """Run a program that prints lines `step DONE TOTAL`; returns its exit code and what it wrote to standard error."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", **options
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                if match := STEP.fullmatch(line.strip()):
                    step(int(match[1]), int(match[2]))
            code = child.wait()
        except BaseException:
            child.kill()
            raise
        errors.seek(0)
        return code, errors.read()


def run(module: str, job: Mapping[str, Any], what: str, step: Step = no_step) -> dict[str, Any]:
    """Run a job in a process of its own, since a fault of a C library ends the process.

    Args:
        module: run with `python -m`: it takes the path of the job, and writes its result, a JSON object, to the path in
            the job's `result`; one with `error` says why it failed.
        what: end of the sentence "The model was not …", for the error.

    Raises:
        ExportError: the process failed, or wrote no result.
    """
    with tempfile.TemporaryDirectory(prefix="llf-gguf-") as work:
        place, result = Path(work) / "job.json", Path(work) / "result.json"
        place.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
        env = computing_environment(os.environ, job["threads"])
        code, errors = run_steps([sys.executable, "-P", "-m", module, str(place)], step, env=env)
        found = read_object_or_empty(result)
        if not code and not result.is_file():
            found = {"error": "its process wrote no result."}
    if code < 0:
        why = f"its process was ended by {signal_name(-code)}. Check that enough memory is free."
        raise ExportError(f"The model was not {what}: {why}")
    if code or "error" in found:
        lines = errors.strip().splitlines() or [f"exit code {code}"]
        raise ExportError(f"The model was not {what}: {found.get('error') or lines[-1][:300]}")
    return found


UNQUANTIZED = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""Dtype of each unquantized type, the most exact in llama.cpp first."""

FILE_TYPES = {
    "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8, "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3,
    "Q4_0": 2, "IQ4_NL": 25, "IQ4_XS": 30, "Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "Q2_K": 10,
}  # fmt: skip
"""`llama_ftype` (llama.h) of each quantization, the largest first, without those that need an importance matrix."""
DEFAULT = ("f16",)


def named_quantizations(names: Sequence[str]) -> tuple[str, ...]:
    """Quantizations as llama.cpp writes their names, each once; `DEFAULT` without names, which may be in any case.

    Raises:
        ExportError: there is no such quantization.
    """
    known = {one.upper(): one for one in (*UNQUANTIZED, *FILE_TYPES)}
    for name in names:
        if str(name).upper() not in known:
            meant = did_you_mean(str(name), list(known.values()))
            raise ExportError(f"`quantizations` names {name!r}.{meant} Expected {', '.join(known.values())}.")
    return tuple(dict.fromkeys(known[str(name).upper()] for name in names)) or DEFAULT


def base_type(quantizations: Sequence[str]) -> str:
    """The type of the file that the others are made from: the most exact unquantized one of them, or f16."""
    return next((one for one in UNQUANTIZED if one in quantizations), "f16")
