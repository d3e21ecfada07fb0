"""Loads adapters over a base model, and checks that PEFT has loaded all of them."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from llf_core.models.adapter_config import adapter_settings, check_stored_weights, keep_from_compiling
from llf_core.models.adapter_folder import PICKLE_FILE, SAFETENSORS_FILE, find_adapter
from llf_core.models.checksums import DEFAULT_ADAPTER, bitwise_equal, check_checksums, list_first
from llf_core.models.errors import MAX_QUOTED, ModelError
from llf_core.models.out_of_memory import is_out_of_memory
from llf_core.models.patterns import check_patterns
from llf_core.models.prompt_encoder import encoded_prompt
from llf_core.models.reward_head import HEAD_NAME, HEAD_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peft import PeftModel
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
