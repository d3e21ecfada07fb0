"""Liger's kernels: what is said without a card or the package, and that nothing else in the process is changed."""

import copy
import os
import sys
from importlib.util import find_spec

import pytest
import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.config import quantizers, validate
from llf_core.modifiers.liger import apply_liger
from llf_core.runs import RunReader
from tests.core.acceleration.architectures import tiny

ASKED = {"dataset": "llf_demo", "enable_liger_kernel": True}


def test_without_a_card_it_is_a_warning(monkeypatch):
    monkeypatch.setattr(quantizers, "has_cuda", lambda: False)
    report = validate(ASKED)
    assert report.ok
    (problem,) = report.violations
    assert "this machine has none: the run trains without them" in problem.message
    assert dict(problem.fixes[0].changes) == {"enable_liger_kernel": False}


@pytest.mark.skipif(find_spec("liger_kernel") is not None, reason="the package is installed")
def test_without_the_package_the_warning_has_the_command(monkeypatch):
    monkeypatch.setattr(quantizers, "has_cuda", lambda: True)
    (problem,) = validate(ASKED).violations
    assert problem.message.endswith("Run: pip install liger-kernel.")
    assert "`use_cpu` is true" in validate(ASKED | {"use_cpu": True}).violations[0].message


def test_transformers_name_of_the_key_is_read():
    assert validate({"dataset": "llf_demo", "use_liger_kernel": True}).config.get("enable_liger_kernel") is True


def test_a_run_without_a_card_trains_as_without_it(trained):
    keys = {"max_steps": 2}
    (plain, _), (folder, code) = trained(**keys), trained(**keys, enable_liger_kernel=True)
    assert code == 0
    losses, expected = (RunReader(one).metrics().values("loss").tolist() for one in (folder, plain))
    assert losses == expected


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="needs liger-kernel, and a card or TRITON_INTERPRET=1")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_its_modules_compute_the_same_beside_the_fast_path(kind):
    device = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
    plain = tiny(kind, torch.float32).to(device)
    model = copy.deepcopy(plain)
    made_by = sys.modules[type(model).__module__]
    names = dict(vars(made_by))
    assert apply_liger(model) == {"llama": 7, "qwen3": 11, "mistral": 7}[kind]
    assert vars(made_by) == names
    assert accelerate(model).flattens
    ids = torch.arange(5, 25, device=device)[None]
    for one in (model, plain):
        one(input_ids=ids, labels=ids).loss.backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).norm()) <= 1e-4 * float(theirs.grad.norm())
