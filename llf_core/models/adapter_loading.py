"""Loads adapters over a base model, and checks that PEFT has loaded all of them.

The regular expressions of an adapter's config run in a process with a time limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from llf_core.models.adapter_folder import (
    PICKLE_FILE,
    SAFETENSORS_FILE,
    adapter_settings,
    check_stored_weights,
    find_adapter,
    keep_from_compiling,
)
from llf_core.models.checksums import DEFAULT_ADAPTER, bitwise_equal, check_checksums, list_first
from llf_core.models.errors import MAX_QUOTED, ModelError
from llf_core.models.memory import is_out_of_memory
from llf_core.models.reward_model import HEAD_NAME, HEAD_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig


SCORE_KEY = f"base_model.model.{HEAD_WEIGHT}"
"""Key of a reward model's head in PEFT's files."""

ROWS = ".token_adapter.trainable_tokens_delta."
"""Part of the name of a parameter with trained rows of an embedding or output head."""


def load_adapter(model: PreTrainedModel, name: str, config: RunConfig, *, trainable: bool = False) -> PeftModel:
    """Wrap a model with an adapter, changing it in place, and verify that all of it was loaded: PEFT only warns."""
    from peft import PeftModel

    folder, settings = _checked(name, model, config)
    with _named_errors(folder, name, config):
        wrapped: PeftModel
        if trainable and hasattr(model, HEAD_NAME) and HEAD_NAME not in (settings.modules_to_save or ()):
            wrapped = _with_new_score(model, settings, folder)
        elif trainable and settings.is_prompt_learning:
            wrapped = _prompt_to_train(model, settings, folder)
        else:
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, config=settings)
    if trainable or getattr(settings, "trainable_token_indices", None):
        _keep_exact(wrapped, folder)
    _check_loaded(wrapped, folder, name, config)
    check_checksums(wrapped, folder)
    return wrapped


def load_beside(model: PeftModel, name: str, label: str, config: RunConfig) -> None:
    """Load a further adapter beside the first one, which stays active, verified as by `load_adapter`."""
    folder, _ = _checked(name, model.get_base_model(), config)
    with _named_errors(folder, name, config):
        model.load_adapter(str(folder), adapter_name=label)
    _check_loaded(model, folder, name, config, label)
    check_checksums(model, folder, label)


def _checked(name: str, base: nn.Module, config: RunConfig) -> tuple[Path, Any]:
    """Folder and PEFT's settings of an adapter, checked against the base model before its weights are read."""
    folder = find_adapter(name, config)
    settings = adapter_settings(folder)
    if (folder / SAFETENSORS_FILE).is_file():
        check_stored_weights(settings, folder)
    keep_from_compiling(settings)
    check_patterns(settings, [module for module, _ in base.named_modules()], folder)
    return folder, settings


@contextmanager
def _named_errors(folder: Path, name: str, config: RunConfig) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        raise ModelError(
            f"{folder / PICKLE_FILE} is damaged, or contains more than tensors. It was not executed. Expected "
            f"{SAFETENSORS_FILE}: take "
            "the adapter from its original source."
        ) from error
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The adapter {name} does not fit the model {config.model.model_name_or_path}: {_cause(error)} "
            f"{_made_for(folder)}"
        ) from error


def _with_new_score(model: PreTrainedModel, settings: Any, folder: Path) -> Any:
    from peft import get_peft_model, load_peft_weights, set_peft_model_state_dict

    settings.modules_to_save = [*(settings.modules_to_save or ()), HEAD_NAME]
    settings.inference_mode = False
    head: Any = model.get_submodule(HEAD_NAME).weight
    wrapped = get_peft_model(model, settings)
    weights = load_peft_weights(str(folder), device="cpu")
    set_peft_model_state_dict(wrapped, weights | {SCORE_KEY: head})
    return wrapped


def _prompt_to_train(model: PreTrainedModel, settings: Any, folder: Path) -> Any:
    """Wrap a model with a stored prompt or prefix and train it further, which PEFT's `from_pretrained` refuses."""
    from peft import get_peft_model, load_peft_weights, set_peft_model_state_dict

    settings.inference_mode = False
    wrapped = get_peft_model(model, settings)
    if encoded_prompt(wrapped) is not None:
        raise ModelError(
            f"{folder} cannot be trained further: PEFT saves the vectors that its encoder computed, and not the "
            "encoder. Use it as it is, or train a new one."
        )
    set_peft_model_state_dict(wrapped, load_peft_weights(str(folder), device="cpu"))
    return wrapped


def _keep_exact(wrapped: Any, folder: Path) -> None:
    """Load again in float32 what PEFT created in the base's dtype: `modules_to_save` and rows of embeddings."""
    from peft import load_peft_weights, set_peft_model_state_dict

    settings = wrapped.peft_config[wrapped.active_adapter]
    if not getattr(settings, "modules_to_save", None) and not getattr(settings, "trainable_token_indices", None):
        return
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad or ROWS in name:
            parameter.data = parameter.data.float()
    weights = load_peft_weights(str(folder), device="cpu")
    if SCORE_KEY not in weights and hasattr(wrapped.get_base_model(), HEAD_NAME):
        weights[SCORE_KEY] = wrapped.get_base_model().score.weight
    set_peft_model_state_dict(wrapped, weights, wrapped.active_adapter)


def _check_loaded(wrapped: Any, folder: Path, name: str, config: RunConfig, label: str = DEFAULT_ADAPTER) -> None:
    from peft import get_peft_model_state_dict, load_peft_weights

    stored = load_peft_weights(str(folder), device="cpu")
    wanted = get_peft_model_state_dict(wrapped, adapter_name=label, save_embedding_layers=False)
    if SCORE_KEY not in stored:  # a reward model may begin with an adapter of a language model
        wanted.pop(SCORE_KEY, None)
    left = sorted(stored.keys() ^ wanted.keys())
    spare = stored.keys() - wanted.keys()
    if wanted.keys() - stored.keys() or not all("embed" in key or "lm_head" in key for key in spare):
        raise ModelError(
            f"The adapter {name} does not fit the model {config.model.model_name_or_path}: {len(left)} weights are "
            f"only in one of them, the first is {left[0]}. {_made_for(folder)}"
        )
    if apart := [key for key, tensor in wanted.items() if not bitwise_equal(stored[key], tensor)]:
        raise ModelError(
            f"PEFT {version('peft')} does not load the adapter {name} completely: {list_first(apart)} of "
            f"{len(wanted):,} weights differ from the file. Expected an adapter that PEFT can load again: train "
            "one with other modules in lora_target."
        )


def _made_for(folder: Path) -> str:
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    return (
        f"It was trained for {str(base)[:MAX_QUOTED]}."
        if base
        else "Its config does not name the model it was trained for."
    )


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if "size mismatch" in line), lines[0] if lines else type(error).__name__)
    line = line[: 300 if "size mismatch" in line else MAX_QUOTED]  # the weight and both shapes
    return line if line.endswith(".") else line + "."


def check_adapter_reloads(model: nn.Module) -> None:
    """Check, before training, that PEFT can save a new adapter and load all of it again.

    Some versions of PEFT drop weights of some modules. Models without an adapter or without values, and prompts that an
    encoder computes (`encoded_prompt`), are not checked.

    Raises:
        ModelError: names the modules that can be trained.
    """
    if not hasattr(model, "peft_config") or encoded_prompt(model) is not None:
        return
    if any(one.is_meta for one in model.parameters()):
        return
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    begun = {name: parameter.detach().clone() for name, parameter in trained.items()}
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    saved = {name: tensor.detach().clone() for name, tensor in saved.items()}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.fill_(torch.nan)
        set_peft_model_state_dict(model, saved)
        lost = [name for name, parameter in trained.items() if not bitwise_equal(begun[name], parameter)]
        for name in lost:
            trained[name].copy_(begun[name])
    if lost:
        fit = sorted({_target(model, name) for name in trained} - {_target(model, name) for name in lost})
        todo = f"Set lora_target: {','.join(fit)}" if fit else "Set finetuning_type: full"
        raise ModelError(
            f"PEFT {version('peft')} would not load the adapter completely after saving it: it drops "
            f"{list_first(lost)} of {len(trained):,} weights. {todo}, or use another model."
        )


def _target(model: nn.Module, name: str) -> str:
    """Name of the module or parameter that an adapter weight belongs to, as `lora_target` takes it."""
    parts = name.split(".")
    place = next((at for at, part in enumerate(parts) if part.startswith("lora_") or part == "modules_to_save"), -1)
    of = getattr(
        model.get_submodule(".".join(parts[:place])), "parameter_name", None
    )  # set by PEFT's wrapper of a parameter
    return str(of or parts[place - 1])


MAX_CPU_SECONDS = 3
"""CPU seconds for all patterns on all names; usual patterns take a few milliseconds."""
MAX_WALL_SECONDS = 60

CHECK_SCRIPT = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({MAX_CPU_SECONDS}, {MAX_CPU_SECONDS}))
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        found = re.compile(pattern)
    except re.error:
        sys.exit(3)
    for name in names:
        found.fullmatch(name)
"""


def check_patterns(settings: PeftConfig, names: Iterable[str], folder: Path) -> None:
    """Refuse an adapter whose patterns are invalid, or take over `MAX_CPU_SECONDS` on the names of the model's modules.

    PEFT would match them in this process, where a regular expression cannot be interrupted.

    Raises:
        ModelError: names the file and the patterns.
    """
    patterns = _patterns(settings)
    if not patterns:
        return
    given = json.dumps([patterns, list(names)])
    try:
        code = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, "-I", "-S", "-c", CHECK_SCRIPT],
            input=given.encode(),
            timeout=MAX_WALL_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code:
        what = (
            "one of them is invalid"
            if code > 0
            else f"one that takes more than {MAX_CPU_SECONDS} s on this model's modules"
        )
        raise ModelError(
            f"{folder / 'adapter_config.json'} names modules by regular expressions, {what}: "
            f"{', '.join(patterns)[:100]}. Copy or download the adapter again, or list the modules by their names."
        )


def _patterns(settings: PeftConfig) -> list[str]:
    texts = [getattr(settings, key, None) for key in ("target_modules", "exclude_modules")]
    patterns = [text for text in texts if isinstance(text, str) and text != "all-linear"]
    for key in ("rank_pattern", "alpha_pattern"):
        patterns += [rf"(.*\.)?({one})$" for one in getattr(settings, key, None) or ()]
    layers = getattr(settings, "layers_pattern", None) or ()
    patterns += [rf".*\.{one}\.(\d+)\..*" for one in ([layers] if isinstance(layers, str) else layers)]
    return patterns


SAVED_PROMPTS = {"embedding.weight", "trainable_embedding"}
"""Trained weights of a prompt that PEFT saves as they are."""


def encoded_prompt(model: Any) -> Any:
    """The encoder of a prompt that is computed from other trained weights, as in P-tuning; None without one.

    PEFT saves the vectors that it computes and not the encoder: the result can be used, but not trained further.
    """
    encoder = getattr(model, "prompt_encoder", None)
    if encoder is None or model.active_adapter not in encoder:
        return None
    trained = {name for name, one in encoder[model.active_adapter].named_parameters() if one.requires_grad}
    return encoder[model.active_adapter] if trained - SAVED_PROMPTS else None
