"""What a test leaves changed in its worker is told and put back."""

import csv
import logging
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest
import torch

from llf_core.runs.process_log import log_to
from tests.process_state import ProcessState, loggers, seed

FAULTS = {
    "csv.field_size_limit()": lambda: csv.field_size_limit(50),
    "os.environ": lambda: os.environ.update(LLF_LEFT="1"),
    "the working directory": lambda: os.chdir("/"),
    "the loggers": lambda: logging.getLogger("llf_core.data").setLevel(logging.DEBUG),
    "root": lambda: logging.root.addHandler(logging.NullHandler()),
    "logging.disable()": lambda: logging.disable(logging.ERROR),
    "handlers of signals": lambda: signal.signal(signal.SIGTERM, lambda *_: None),
    "sys.path": lambda: sys.path.insert(0, "/nowhere"),
    "threading.excepthook": lambda: setattr(threading, "excepthook", lambda _: None),
    "the umask": lambda: os.umask(0o7),
    "np.geterr()": lambda: np.seterr(all="ignore"),
    "torch.get_default_dtype()": lambda: torch.set_default_dtype(torch.float64),
    "torch.is_grad_enabled()": lambda: torch.set_grad_enabled(False),
    "torch.are_deterministic_algorithms_enabled()": lambda: torch.use_deterministic_algorithms(
        mode=True, warn_only=True
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_left_changed_is_told_and_put_back(name):
    state = ProcessState()
    FAULTS[name]()
    assert any(name in told and " → " in told for told in state.restore())
    assert state.restore() == []


def test_of_the_environment_only_what_differs_is_told(monkeypatch):
    monkeypatch.setenv("LLF_WAS", "a")
    state = ProcessState()
    del os.environ["LLF_WAS"]
    assert state.restore() == ["os.environ: LLF_WAS 'a' → None"]
    assert os.environ["LLF_WAS"] == "a"


def test_what_a_trainer_sets_for_its_own_process_is_put_back_without_a_word():
    before = loggers(), torch.get_num_threads()
    state = ProcessState()
    log_to("stdout")
    torch.set_num_threads(3)
    assert state.restore() == []
    assert (loggers(), torch.get_num_threads()) == before


@pytest.fixture(scope="module")
def state_of_the_module():
    """What a trainer would leave, and what a fixture of a module means to set for all its tests."""
    before = loggers(), signal.getsignal(signal.SIGTERM)

    def request_stop(*_):
        """The handler of a trainer."""

    request_stop.__module__ = "llf_core.training.session"
    signal.signal(signal.SIGTERM, request_stop)
    log_to("stdout")
    os.environ["LLF_OF_THE_MODULE"] = "1"
    yield before
    del os.environ["LLF_OF_THE_MODULE"]


def test_what_a_trainer_in_a_fixture_of_a_module_sets_ends_with_the_fixture(state_of_the_module):
    assert (loggers(), signal.getsignal(signal.SIGTERM)) == state_of_the_module
    assert os.environ["LLF_OF_THE_MODULE"] == "1"


def test_every_test_begins_with_the_same_random_numbers():
    draws = []
    for _ in range(2):
        seed()
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002 - the generator that libraries share
    assert draws[0] == draws[1]
