"""What all tests of a worker share, as it belongs to the process: read before a test, compared and put back after it.

A trainer and a supervisor have a process of their own, which they set up as they need it. Where a test runs one in its
own process, what these set is put back without a word (`Kept.expected`); all else that differs fails the test.

Filters of warnings are not among it, since pytest puts those back after every phase of a test.
"""

from __future__ import annotations

import csv
import gc
import locale
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

OWN_LOGGERS = ("llf", "llf_core", "llf_widgets")
# Not SIGALRM, which is pytest-timeout's, and not SIGCHLD, which torch sets once for good with its first data loader.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)
PRODUCT = ("llf_core.", "llf_widgets.")
LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CPU)


class Kept(NamedTuple):
    """One thing that is the process's: how it is read, how it is put back, and which change of it is no fault."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    expected: Callable[[Any, Any], bool] = lambda before, after: False


SET_BY_OTHERS = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK")
"""Variables that pytest rewrites in every phase, and that torch's compiler and scikit-learn set once for good."""


def environment() -> dict[str, str]:
    """The environment, but for what libraries set."""
    return {name: value for name, value in os.environ.items() if name not in SET_BY_OTHERS}


def restore_environment(kept: dict[str, str]) -> None:
    for name in environment().keys() - kept.keys():
        del os.environ[name]
    os.environ.update(kept)


def working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "a directory that is gone"


def loggers() -> dict[str, tuple[int, bool, bool, list[logging.Handler]]]:
    """Level, propagation, whether disabled, and handlers of the root logger and of ours; not the handlers of pytest."""
    known = logging.root.manager.loggerDict
    ours = [one for name, one in known.items() if name.startswith(OWN_LOGGERS) and isinstance(one, logging.Logger)]
    return {
        one.name: (
            one.level,
            one.propagate,
            one.disabled,
            [handler for handler in one.handlers if not type(handler).__module__.startswith("_pytest")],
        )
        for one in [logging.root, *ours]
    }


def changed_loggers() -> dict[str, Any]:
    """Loggers that are not as a new one is: what a first import of ours adds is no change."""
    return {name: state for name, state in loggers().items() if state != (logging.NOTSET, True, False, [])}


def restore_loggers(kept: dict[str, Any]) -> None:
    for name, (_, _, _, handlers) in loggers().items():
        one = logging.getLogger(name) if name != "root" else logging.root
        level, propagate, disabled, wanted = kept.get(name, (logging.NOTSET, True, False, []))
        for handler in handlers:
            if handler not in wanted:
                one.removeHandler(handler)
        for handler in wanted:
            one.addHandler(handler)
        one.setLevel(level)
        one.propagate, one.disabled = propagate, disabled


def umask() -> str | None:
    """As Linux tells it, None elsewhere: the only call that returns it sets it, for all threads."""
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as status:
            return next((line.split()[1] for line in status if line.startswith("Umask")), None)
    except FileNotFoundError:
        return None


def logs_to_the_run(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Only the logger of a trainer or command differs, which writes to this process's streams."""
    others = {name: after.get(name) == before.get(name) for name in before.keys() | after.keys() if name != "llf_core"}
    handlers = after.get("llf_core", (0, True, False, []))[-1]
    return all(others.values()) and bool(handlers) and all(type(one).__module__.startswith(PRODUCT) for one in handlers)


def handled_by_the_product(before: dict[int, Any], after: dict[int, Any]) -> bool:
    """Only handlers of a trainer or a supervisor differ."""
    return all(
        getattr(handler, "__module__", "").startswith(PRODUCT)
        for number, handler in after.items()
        if handler is not before[number]
    )


def only_code_of_models(before: list[str], after: list[str]) -> bool:
    """transformers adds the folder to which it copies the code of models, where it is not there yet."""
    return before == [path for path in after if path in before or not path.endswith("/modules")]


def restore_signals(kept: dict[int, Any]) -> None:
    for number, handler in kept.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def restore_limits(kept: dict[int, tuple[int, int]]) -> None:
    for kind, limits in kept.items():
        resource.setrlimit(kind, limits)


PROCESS = (
    # Readers of data raise it once a process, and never lower it.
    Kept("csv.field_size_limit()", csv.field_size_limit, csv.field_size_limit, lambda before, after: after > before),
    Kept("os.environ", environment, restore_environment),
    Kept("the working directory", working_directory, os.chdir),
    Kept("the loggers root and llf_*", changed_loggers, restore_loggers, logs_to_the_run),
    Kept("logging.disable()", lambda: logging.root.manager.disable, logging.disable),
    Kept(
        "handlers of signals",
        lambda: {one: signal.getsignal(one) for one in SIGNALS},
        restore_signals,
        handled_by_the_product,
    ),
    Kept("limits of resources", lambda: {one: resource.getrlimit(one) for one in LIMITS}, restore_limits),
    Kept("sys.path", lambda: list(sys.path), lambda kept: sys.path.__setitem__(slice(None), kept), only_code_of_models),
    # Typer sets its own with every command, and torch with every group of processes.
    Kept("sys.excepthook", lambda: sys.excepthook, lambda kept: setattr(sys, "excepthook", kept),
         lambda before, after: getattr(after, "__module__", "").startswith(("typer", "torch.distributed"))),
    Kept("threading.excepthook", lambda: threading.excepthook, lambda kept: setattr(threading, "excepthook", kept)),
    Kept("the limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit),
    Kept("gc.isenabled()", gc.isenabled, lambda kept: gc.enable() if kept else gc.disable()),
    Kept("tempfile.tempdir", lambda: tempfile.tempdir, lambda kept: setattr(tempfile, "tempdir", kept)),
    Kept("the umask", umask, lambda kept: os.umask(int(kept, 8))),
    Kept("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda kept: locale.setlocale(locale.LC_ALL, kept)),
)  # fmt: skip


def numpy_state() -> tuple[Kept, ...]:
    import numpy as np

    return (Kept("np.geterr()", np.geterr, lambda kept: np.seterr(**kept)),)


def torch_state() -> tuple[Kept, ...]:
    import torch

    def restore_determinism(kept: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])

    return (
        Kept("torch.get_default_dtype()", torch.get_default_dtype, torch.set_default_dtype),
        Kept("torch.get_default_device()", torch.get_default_device, torch.set_default_device),
        # As many as the config of the last attempt or evaluation asks for.
        Kept("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads, lambda before, after: True),
        Kept("torch.is_grad_enabled()", torch.is_grad_enabled, torch.set_grad_enabled),
        Kept("torch.is_autocast_enabled('cpu')", lambda: torch.is_autocast_enabled("cpu"),
             lambda kept: torch.set_autocast_enabled("cpu", kept)),
        Kept(
            "torch.are_deterministic_algorithms_enabled()",
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            restore_determinism,
        ),
        Kept("torch.get_float32_matmul_precision()", torch.get_float32_matmul_precision,
             torch.set_float32_matmul_precision),
    )  # fmt: skip


_OF_LIBRARIES: dict[str, tuple[Kept, ...]] = {}


def _kept() -> tuple[Kept, ...]:
    """What can be read now: of numpy and torch only where something has imported them."""
    for library, state in (("numpy", numpy_state), ("torch", torch_state)):
        if library not in _OF_LIBRARIES and library in sys.modules:
            _OF_LIBRARIES[library] = state()
    return (*PROCESS, *(one for state in _OF_LIBRARIES.values() for one in state))


def seed() -> None:
    """Has every test begin with the same random numbers, whichever test was before it."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


class ProcessState:
    """The state as it was when this was made."""

    def __init__(self) -> None:
        self._before = [(one, one.read()) for one in _kept()]

    def restore(self) -> list[str]:
        """Puts back what is not as it was.

        Returns:
            Of each change that is a fault, what it was and what it had become.
        """
        changes = []
        for kept, before in self._before:
            after = kept.read()
            if after != before:
                kept.restore(before)
                if kept.expected(before, after):
                    continue
                changes.append(f"{kept.name}: {difference(before, after)}")
        return changes

    def restore_what_the_product_sets(self) -> None:
        """Puts back what a trainer or supervisor of ours set for its process, and leaves all else as it is."""
        for kept, before in self._before:
            after = kept.read()
            if after != before and kept.expected(before, after):
                kept.restore(before)


def difference(before: Any, after: Any) -> str:
    """`before → after`, of dictionaries only the entries that differ."""
    if isinstance(before, dict):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return ", ".join(f"{name} {before.get(name)!r} → {after.get(name)!r}" for name in names)
    return f"{before!r} → {after!r}"
