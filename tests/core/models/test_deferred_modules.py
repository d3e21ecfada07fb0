"""Modules of torch that others stand in for. A process of its own, since it must stand in before torch is loaded."""

import json
import subprocess
import sys
from typing import Any

import pytest

from llf_core.models.lazy_imports import STAND_INS, can_defer

START = """
import json, os, sys
from llf_core.models.lazy_imports import STAND_INS, defer_modules, import_real
defer_modules()
from llf_core.models.lazy_imports import quantizer_modules
sys.modules.update(dict.fromkeys(quantizer_modules()))  # which bring a compiler
import torch, transformers, peft, accelerate
def there():
    parts = ("torch._dynamo.convert_frame", "torch.distributed.tensor.placement_types")
    return [name for name in parts if name in sys.modules]
for line in sys.stdin:
    if os.fork() == 0:
        exec(json.loads(line))
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        print("null", flush=True)
"""


@pytest.fixture(scope="module")
def told():
    """`told(code)`: what code prints as JSON in a fork of a process that has deferred the modules and loaded torch."""
    child = subprocess.Popen([sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(code: str) -> Any:
        print(json.dumps(code), file=child.stdin, flush=True)
        return json.loads(child.stdout.readline())

    yield tell
    child.communicate()
    assert child.returncode == 0


def test_transformers_and_optimizers_do_without_the_compiler(told):
    assert told("""
import torch, transformers, peft, accelerate
from transformers import LlamaForCausalLM, Trainer
layer = torch.nn.Linear(2, 2)
for make in (torch.optim.AdamW, torch.optim.SGD, transformers.Adafactor):
    optimizer = make(layer.parameters(), lr=None if make is transformers.Adafactor else 0.1)
    layer(torch.ones(1, 2)).sum().backward()
    torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
from torch.distributed.tensor import DTensor
compiled = isinstance(layer, torch._dynamo.eval_frame.OptimizedModule)
import inspect
inspect.getmodule(sys._getframe())  # looks through all modules, and asks for nothing
print(json.dumps([there(), compiled, isinstance(layer.weight, DTensor), issubclass(int, DTensor)]))
""") == [[], False, False, False]


def test_what_is_asked_for_beyond_that_is_the_module_itself(told):
    assert told("""
import torch, transformers
from importlib.util import find_spec
before, spec = torch._dynamo, find_spec("torch._dynamo").name
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributed.tensor import DTensor
layer = torch.nn.Linear(2, 2)
compiled = torch.compile(layer, backend="eager")
same = bool((compiled(torch.ones(1, 2)) == layer(torch.ones(1, 2))).all())
import torch._dynamo.utils
from torch._dynamo.utils import counters
import torch.distributed.tensor.placement_types as placement_types
print(json.dumps([
    spec, same, isinstance(compiled, OptimizedModule), isinstance(layer, OptimizedModule), len(there()),
    torch._dynamo is sys.modules["torch._dynamo"], torch._dynamo is not before, before.config is torch._dynamo.config,
    torch._dynamo.eval_frame.OptimizedModule is type(compiled), DTensor.from_local is not None,
    torch.distributed.tensor.placement_types is placement_types, torch._dynamo.__spec__.name,
]))
""") == ["torch._dynamo", True, True, False, 2, True, True, True, True, True, True, "torch._dynamo"]


def test_a_module_below_one_that_is_stood_in_for_is_imported_once(told):
    assert told("""
from torch._dynamo.utils import counters
import torch._dynamo.utils
print(json.dumps([torch._dynamo.utils.counters is counters, torch._dynamo.utils is sys.modules["torch._dynamo.utils"],
                  torch._dynamo.utils.__spec__.loader.__class__.__name__]))
""") == [True, True, "SourceFileLoader"]


def test_the_names_are_those_of_the_modules(told):
    missing = told("""
named = [(name, one) for name, names in STAND_INS.items() for one in names]
print(json.dumps([f"{name}.{one}" for name, one in named if not hasattr(import_real(name), one)]))
""")
    assert missing == []
    assert set(STAND_INS) >= {"torch._dynamo", "torch.distributed.tensor"}


def test_code_that_asks_for_the_trick_of_the_compiler_gets_it(told):
    assert told("""
import torch
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
with TransformGetItemToIndex():
    found = torch.vmap(lambda i: torch.arange(3)[i])(torch.tensor([2, 0]))
print(json.dumps([found.tolist(), len(there())]))
""") == [[2, 0], 2]


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"torch_compile": True}, False),
        ({"torch_compile_backend": "eager"}, False),
        ({"trust_remote_code": True}, False),
    ],
)
def test_a_run_that_may_compile_something_defers_nothing(config, changes, may):
    assert can_defer(config(**changes)) is may


def test_one_of_several_processes_defers_nothing(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert can_defer(config()) is False
