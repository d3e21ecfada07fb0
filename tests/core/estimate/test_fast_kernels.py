"""Which fast kernels a model's layers would use, and what is said where they are missing."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name

from llf_core.config import RunConfig
from llf_core.estimate.devices import Device
from llf_core.estimate.model_sizes import fast_kernels, kernel_problems

GPU, CPU = (Device(kind, kind, 2**34, 2**34) for kind in ("cuda", "cpu"))
NAMED = re.compile(r'use_kernel_func_from_hub_with_fallback\(\s*"\w+",\s*"(\w+)"')
MODELS = Path(transformers.__file__).parent / "models"


@pytest.fixture
def problems(tmp_path):
    """Problems of a config whose model has such a `config.json`, on a machine with a GPU or other devices."""

    def of(settings=None, devices=(GPU, CPU), **values):
        model = "Qwen/Qwen3.5-4B" if settings is None else str(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(settings or {}))
        return kernel_problems(RunConfig.load({"dataset": "llf_demo", "model_name_or_path": model} | values), devices)

    return of


def test_the_table_is_what_the_modeling_files_name():
    found = {one.module: set() for one in fast_kernels()}
    for kind in CONFIG_MAPPING_NAMES:
        for file in (MODELS / model_type_to_module_name(kind)).glob("modeling_*.py"):
            for module in NAMED.findall(file.read_text(encoding="utf-8")):
                found[module].add(kind)
    assert found == {one.module: one.types for one in fast_kernels()}


@pytest.mark.skipif(bool(find_spec("fla") or find_spec("mamba_ssm")), reason="the kernels are installed")
@pytest.mark.parametrize(
    ("settings", "packages", "layers"),
    [
        ({"model_type": "qwen3_next"}, "flash-linear-attention and causal-conv1d", "linear attention and short conv"),
        ({"model_type": "x", "text_config": {"model_type": "mamba2"}}, "causal-conv1d and mamba-ssm", "short conv"),
        ({"model_type": "lfm2"}, "causal-conv1d is", "short conv"),
        (None, "flash-linear-attention and causal-conv1d", "linear attention"),  # known from the catalog
    ],
)
def test_missing_kernels_are_a_warning_with_the_command(problems, settings, packages, layers):
    (problem,) = problems(settings)
    assert (problem.severity, problem.key) == ("warning", "model_name_or_path")
    assert packages in problem.message
    assert f"layers of {layers}" in problem.message
    assert "Run: pip install" in problem.message


@pytest.mark.parametrize("settings", [{"model_type": "llama"}, {}, {"model_type": ["mamba"], "text_config": 3}])
def test_a_model_without_such_layers_needs_none(problems, settings):
    assert problems(settings) == ()


def test_without_a_gpu_there_is_nothing_to_install(problems):
    assert problems({"model_type": "mamba"}, (CPU,), flash_attn="fa2") == ()
    assert problems({"model_type": "mamba"}, use_cpu=True) == ()


@pytest.mark.skipif(bool(find_spec("flash_attn") or find_spec("kernels")), reason="FlashAttention is installed")
def test_flash_attention_that_is_missing_is_an_error_with_a_fix(problems):
    (problem,) = problems({"model_type": "llama"}, flash_attn="fa2")
    assert (problem.severity, problem.key) == ("error", "flash_attn")
    assert "pip install flash-attn --no-build-isolation" in problem.message
    assert dict(problem.fixes[0].changes) == {"flash_attn": "auto"}
    assert "hopper" in problems({"model_type": "llama"}, flash_attn="fa3")[0].message
