"""The environment that a trainer is started in, and the process itself."""

import os
import subprocess
import sys

import pytest

from llf_core.launch.local_process import RUNTIME_VARIABLES, THREAD_VARIABLES, Trainer, computing_environment


def test_threads_and_the_allocator_are_set_before_any_library_is_loaded():
    made = computing_environment({"HOME": "/somewhere"}, 3)
    assert {made[name] for name in THREAD_VARIABLES} == {"3"}
    assert made.items() >= {**RUNTIME_VARIABLES, "HOME": "/somewhere"}.items()
    assert "OMP_WAIT_POLICY" not in made


PRODUCTS = """
import ctypes
import torch
class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena o s h hblkhd u f uordblks fordblks keepcost".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
weight = torch.ones(640, 576, dtype=torch.bfloat16)
def multiply(shapes):
    for rows in shapes:
        torch.nn.functional.linear(torch.ones(rows, 576, dtype=torch.bfloat16), weight)
    return libc.mallinfo2().uordblks
print(-multiply(range(100, 140)) + multiply(range(200, 240)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallinfo2 is glibc's")
def test_the_products_that_are_compiled_for_new_shapes_are_bounded():
    """Once as many products are kept as the environment allows, those of new shapes take no more memory."""

    def grown(**more):
        made = computing_environment({**os.environ, **more}, 1)
        ran = subprocess.run([sys.executable, "-c", PRODUCTS], env=made, capture_output=True, text=True, check=True)
        return int(ran.stdout)

    free = grown()
    if free < 40 * 100_000:
        pytest.skip("this processor compiles no bfloat16 products for their shapes")
    both = {name: "20" for name in RUNTIME_VARIABLES if name.endswith("CACHE_CAPACITY")}
    assert len(both) == 2
    assert grown(**both) < free / 10


def test_what_the_user_has_set_stays():
    own = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "infinite", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "10"}
    made = computing_environment(own, 3)
    assert made.items() >= own.items()
    assert made["MKL_NUM_THREADS"] == "3"


def test_a_log_has_no_colours_whoever_starts_the_run():
    made = computing_environment({"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-color"}, 3)
    assert "FORCE_COLOR" not in made
    assert "CLICOLOR_FORCE" not in made
    assert (made["NO_COLOR"], made["TERM"]) == ("1", "xterm-color")


def test_the_exit_code_of_a_trainer_can_be_asked_again(tmp_path):
    with (tmp_path / "log.txt").open("wb") as log:
        trainer = Trainer(["/bin/sh", "-c", "exit 3"], {}, log)
        trainer.go()
        assert [trainer.wait(120), trainer.wait(120)] == [3, 3]
