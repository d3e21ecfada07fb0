"""Every test has an LLF_HOME of its own, and leaves neither a process nor a change of the worker's own behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.process_state import ProcessState, seed
from tests.processes import end

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from transformers import PreTrainedTokenizerFast

    from tests.forking import ForkServer

# Before torch is loaded: threads of tests that run beside others sleep while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell has what it runs in the background ignore interrupts and quits, and all that the tests start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
try:
    from hypothesis import HealthCheck
    from hypothesis import settings as hypothesis_settings
except ModuleNotFoundError:  # a machine with a card has pytest alone, and runs tests/gpu
    pass
else:
    # One profile for all: of two, whichever was loaded last would count for every test. How long an example takes, and
    # how long it takes to draw, says nothing where several test runs share a machine.
    hypothesis_settings.register_profile(
        "llf", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    hypothesis_settings.load_profile("llf")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser come last: its driver leaves a loop running, beside which no other one can be run.

    Of their files those with most tests come first, so that no worker has a long one left when the others are done.
    """
    tests = Counter(item.path for item in items if item.get_closest_marker("browser") is not None)
    items.sort(key=lambda item: -tests[item.path] if item.get_closest_marker("browser") is not None else -sys.maxsize)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> Generator[None, Any, Any]:
    """A trainer that a fixture of several tests runs leaves no handler of a signal or logger to all tests after it."""
    if fixturedef.scope == "function":
        return (yield)
    state = ProcessState()
    try:
        return (yield)
    finally:
        state.restore_what_the_product_sets()


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> None:
    """Leaves what is there before a module out of its collections of garbage.

    A trainer collects at its end, and would look through all modules and tests that are loaded for half a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Fails a test that leaves changed what all tests of this process share, and puts it back; seeds what draws."""
    state = ProcessState()
    seed()
    yield
    if changes := state.restore():
        pytest.fail("The test left the process changed. " + "; ".join(changes), pytrace=False)


@pytest.fixture(autouse=True)
def llf_home(process_state: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`LLF_HOME` of this test. What its runs or the test itself started is ended afterwards."""
    home = tmp_path / "llf-home"
    monkeypatch.setenv("LLF_HOME", str(home))
    before = children()
    yield home
    # What a session's fixture started (a browser, say) goes on, with all that it starts later.
    own = [process for pid in children() - before if (process := process_of(pid)) is not None]
    started = [process for child in own for process in (*descendants(child), child)]
    end([*recorded(home), *started])


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """`tests.tiny.tiny_tokenizer()`. Shared by the session: change a copy, never this one."""
    from tests.tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 2-layer Llama (safetensors, random weights) and its tokenizer. Never write to it."""
    from tests.tiny import tiny_llama

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_llama(tiny_tokenizer).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def endless_model_dir(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context of 65,536 tokens: a reply of that length takes longer than any test."""
    from tests.tiny import tiny_llama

    folder = tmp_path_factory.mktemp("models") / "endless"
    model = tiny_llama(tiny_tokenizer)
    model.config.max_position_embeddings = 65_536
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Forks interpreters that have torch loaded."""
    from tests.forking import ForkServer

    server = ForkServer(tmp_path_factory.mktemp("forking"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def kernel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Forks Jupyter kernels that have loaded the notebook views."""
    from tests.forking import ForkServer

    server = ForkServer(tmp_path_factory.mktemp("kernels"), "kernels")
    yield server
    server.close()


@pytest.fixture
def warm_python(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has what this test starts with `sys.executable` begin with torch loaded: seconds less each.

    For tests of what such a process answers, not of how it starts: libraries read the environment when they are loaded.
    """
    monkeypatch.setattr(sys, "executable", str(fork_server.python))
    return fork_server.python


@pytest.fixture
def warm_kernels(
    fork_server: ForkServer, kernel_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Has this test's Jupyter kernels begin with the notebook views loaded, and what they start with torch loaded."""
    from tests.forking import warm_jupyter

    profiles, share = tmp_path / "ipython", tmp_path / "share"
    warm_jupyter(profiles, share, kernel_server, fork_server)
    monkeypatch.setenv("IPYTHONDIR", str(profiles))
    monkeypatch.setenv("JUPYTER_PATH", str(share))


def recorded(home: Path) -> list[psutil.Process]:
    """The supervisors and trainers that run folders name, with their descendants; they are no children."""
    from llf_core.untrusted import read_object_or_empty

    found = []
    for path in home.glob("runs/*/status.json"):
        status = read_object_or_empty(path)  # a test of broken folders may have put anything there
        entries = [status.get("supervisor"), {"pid": status.get("pid"), "started": status.get("started")}]
        for entry in entries:
            found += family(entry) if isinstance(entry, dict) else []
    return found


def family(entry: dict[str, object]) -> list[psutil.Process]:
    """A recorded process and its descendants, where its pid was not given to another one since."""
    pid, started = entry.get("pid"), entry.get("started")
    if not isinstance(pid, int) or pid == os.getpid() or not isinstance(started, int | float):
        return []
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > 1:
            return []
    except psutil.NoSuchProcess:
        return []
    return [process, *descendants(process)]


def children() -> set[int]:
    """The process ids of the children.

    psutil reads all processes of the machine for that, for milliseconds before and after each test. Linux lists those
    of each thread, but can leave out some while others end: a list counts if it is read twice.
    """
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return {child.pid for child in psutil.Process().children()}
    found, again = _listed_children(), _listed_children()
    while found != again:
        found, again = again, _listed_children()
    return found


def _listed_children() -> set[int]:
    found: set[int] = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found.update(map(int, listed.read_text().split()))
    return found


def process_of(pid: int) -> psutil.Process | None:
    """The process with a pid, None where there is none."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All processes below one."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []
