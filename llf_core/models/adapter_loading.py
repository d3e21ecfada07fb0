"""Finds adapters, checks them against their base model, and merges them or continues to train them."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.checksums import DEFAULT_ADAPTER, bitwise_equal, check_checksums, list_first
from llf_core.models.errors import MAX_QUOTED, ModelError, first_line
from llf_core.models.header_check import damaged_json
from llf_core.models.model_folder import check_text_files, read_json_object
from llf_core.models.out_of_memory import is_out_of_memory
from llf_core.models.parameter_count import is_packed
from llf_core.models.patterns import check_patterns
from llf_core.models.quantize import is_quantized
from llf_core.models.reward_head import HEAD_NAME, HEAD_WEIGHT
from llf_core.models.stored_tensors import INTEGERS, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import UnionType

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

SAFETENSORS_FILE, PICKLE_FILE = "adapter_model.safetensors", "adapter_model.bin"
SCORE_KEY = f"base_model.model.{HEAD_WEIGHT}"
"""Key of a reward model's head in PEFT's files."""


ROWS = ".token_adapter.trainable_tokens_delta."
"""Part of the name of a parameter with trained rows of an embedding or output head."""
NOT_MERGEABLE = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""Errors of PEFT for an adapter that it cannot merge. An error of memory is one of them."""
SAVED_PROMPTS = {"embedding.weight", "trainable_embedding"}
"""Trained weights of a prompt that PEFT saves as they are."""
MAX_LISTED = 5
"""Maximum number of subfolders that a message names."""
MAX_NAMES = 10_000
"""Maximum length of a list in an adapter's config: PEFT compares each entry with each module."""
NAME_TYPES: Any = str | list | None
FIELD_TYPES: dict[str, type | UnionType] = {
    "peft_type": str, "base_model_name_or_path": str | None, "r": int, "lora_alpha": int | float,
    "lora_dropout": int | float, "bias": str, "target_modules": NAME_TYPES, "exclude_modules": NAME_TYPES,
    "layers_pattern": NAME_TYPES, "layers_to_transform": int | list | None, "modules_to_save": list | None,
    "target_parameters": list | None, "rank_pattern": dict | None, "alpha_pattern": dict | None,
    "trainable_token_indices": dict | list | None, "layer_replication": list | None,
}  # fmt: skip
"""Expected types of keys in `adapter_config.json` that PEFT uses without checking them."""


def find_adapter(name: str, config: RunConfig) -> Path:
    """Find an adapter: a local folder, the `output` of a run, or a hub repository, which is downloaded if needed.

    Args:
        name: path or hub id, as in `adapter_name_or_path`.
        config: for `hub`, `cache_dir`, `adapter_folder` and `allow_pickle`.

    Returns:
        The adapter's folder, with its config and weights; their content is not checked yet.

    Raises:
        ModelError: there is no such adapter, it has no config, no weights or no subfolder `adapter_folder`, the hub
            does not give it, or its weights exist only as pickle and `allow_pickle` is off.
        OSError: the hub's cache cannot be written, for example on a full disk, or a folder cannot be read, for example
            without permission.
    """
    folder = expanded(name)
    if not name.strip() or not is_there(folder):
        if is_path(name) or "/" not in name or not may_be_hub_id(name):
            raise ModelError(
                f"No adapter at {shown_name(name)}. Expected a folder with adapter_config.json, or a hub id."
                f"{meant_instead(name, config.model.cache_dir)}"
            )
        from llf_core.models.hub import hub_adapter

        folder = hub_adapter(name, config)
    folder = _subfolder(folder, name, config)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} has no adapter_config.json, so it is not an adapter. Expected a folder that PEFT saved, such as "
            "the output of a LoRA run."
        )
    if not (folder / SAFETENSORS_FILE).is_file():
        if not (folder / PICKLE_FILE).is_file():
            raise ModelError(f"{name} has no {SAFETENSORS_FILE}. Copy or download the adapter again.")
        check_pickle(folder, name, config)
    return folder


def check_pickle(folder: Path, name: str, config: RunConfig) -> None:
    """Refuse an adapter that has its weights only as pickle, unless the config allows that.

    Args:
        folder: of the adapter.
        name: its name, for the message.
        config: for `allow_pickle`.

    Raises:
        ModelError: it is not allowed.
        OSError: the folder cannot be read, for example without permission.
    """
    if (folder / SAFETENSORS_FILE).is_file() or not (folder / PICKLE_FILE).is_file() or config.model.allow_pickle:
        return
    raise ModelError(
        f"{name} has its weights only as pickle ({PICKLE_FILE}), which can run code while it loads. "
        "Set allow_pickle: true if you trust its source."
    )


def _subfolder(folder: Path, name: str, config: RunConfig) -> Path:
    """The subfolder `adapter_folder` of an adapter's folder; other adapters than those it is for may have none."""
    inside = config.model.adapter_folder
    if inside is None:
        return folder
    found = folder / inside
    if not (inside.startswith("/") or ".." in found.parts) and is_there(found) and found.is_dir():
        return found
    if name not in (config.model.adapter_name_or_path or ()):
        return folder
    others = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    has = f" It has adapters in {', '.join(others[:MAX_LISTED])}." if others else ""
    raise ModelError(
        f"{shown_name(name)} has no subfolder {shown_name(inside)} (adapter_folder).{has} Expected a subfolder with "
        "adapter_config.json, or no adapter_folder."
    )


def without_adapter_folder(config: RunConfig) -> RunConfig:
    """Replace the adapters of a config by the subfolders that `adapter_folder` selects, so that others can be added.

    Args:
        config: names the adapters.

    Returns:
        A config without `adapter_folder`; the given one if it has none.

    Raises:
        ModelError: an adapter does not exist, see `find_adapter`.
        OSError: the hub's cache cannot be written, or a folder cannot be read.
        ConfigError: the path of an adapter is not valid in a config.
        PluginError: two installed packages declare the same name or key.
    """
    if config.model.adapter_folder is None:
        return config
    keys = [key for key in ("adapter_name_or_path", "ref_model_adapters") if config.get(key)]
    found = {key: [str(find_adapter(name, config)) for name in config.get(key)] for key in keys}
    return config.replace(adapter_folder=None, **found)


def merge_adapters(model: PreTrainedModel, names: Sequence[str], config: RunConfig) -> PreTrainedModel:
    """Merge adapters into the weights, one after the other, so that a new adapter can be trained on top.

    Args:
        model: unquantized base model; changed in place.
        names: paths or hub ids of the adapters, in the order in which they are merged.
        config: see `find_adapter`.

    Returns:
        The model. If there were adapters, its attribute `llf_merged` lists them, so that it is not taken for its base.

    Raises:
        ModelError: an adapter is missing, damaged, does not fit or is of a type that cannot be merged, or the model is
            quantized.
        UnreadableError: the `output.json` of the run that trained an adapter is not a regular file, or too large.
        OSError: a file cannot be read, or the hub's cache cannot be written.
        MemoryError: out of memory; on a GPU, torch's error for it.
    """
    if names and is_quantized(model):
        raise ModelError(
            f"{names[0]} cannot be merged into a quantized model without loss. Give only one adapter, or remove "
            "quantization_bit."
        )
    for name in names:
        wrapped = load_adapter(model, name, config)
        try:
            model = wrapped.merge_and_unload()
        except NOT_MERGEABLE as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"{name} cannot be merged into its base: adapters of the type "
                f"{wrapped.active_peft_config.peft_type.value} with its options stay separate from it. Give it as the "
                "only adapter, without create_new_adapter."
            ) from error
    if names:
        model.llf_merged = list(names)
    return model


def continues_adapter(config: RunConfig) -> bool:
    """Whether the run continues to train an existing adapter, instead of merging it and making a new one.

    Disabling the adapter then gives the base, not the model that the run started from.
    """
    return bool(config.model.adapter_name_or_path) and not config.get("create_new_adapter")


def load_frozen_adapters(
    model: PreTrainedModel, names: Sequence[str], config: RunConfig
) -> PreTrainedModel | PeftModel:
    """Load frozen adapters, as of a reference model: merged, or a single one kept separate if the model is quantized.

    Args:
        model: base model; changed in place.
        names: paths or hub ids of the adapters.
        config: see `find_adapter`.

    Returns:
        The model with merged adapters, or a `PeftModel`.

    Raises:
        ModelError: an adapter is missing, damaged, does not fit or is of a type that cannot be merged, or several are
            given for a quantized model.
        UnreadableError: the `output.json` of the run that trained an adapter is not a regular file, or too large.
        OSError: a file cannot be read, or the hub's cache cannot be written.
        MemoryError: out of memory; on a GPU, torch's error for it.
    """
    if len(names) == 1 and is_quantized(model):
        return load_adapter(model, names[0], config)
    return merge_adapters(model, names, config)


def load_adapter(model: PreTrainedModel, name: str, config: RunConfig, *, trainable: bool = False) -> PeftModel:
    """Wrap a model with an adapter, and verify that PEFT has loaded all of it: PEFT itself only warns.

    Args:
        model: base model, quantized or not; changed in place.
        name: path or hub id of the adapter.
        config: see `find_adapter`.
        trainable: whether the adapter is trained further; else it is frozen.

    Returns:
        The wrapped model, with the adapter's weights as stored.

    Raises:
        ModelError: the adapter is missing or damaged, or does not fit the model.
        UnreadableError: the `output.json` of the run that trained it is not a regular file, or too large.
        OSError: a file cannot be read, or the hub's cache cannot be written.
        MemoryError: out of memory; on a GPU, torch's error for it.
    """
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
    """Load a further adapter beside the first one of a model, verified as by `load_adapter`; the first stays active.

    Args:
        model: the model with its first adapter; changed in place.
        name: path or hub id of the adapter.
        label: PEFT's name for it, unlike the others.
        config: see `find_adapter`.

    Raises:
        ModelError: the adapter is missing or damaged, or does not fit the model.
        UnreadableError: the `output.json` of the run that trained it is not a regular file, or too large.
        OSError: a file cannot be read, or the hub's cache cannot be written.
        MemoryError: out of memory; on a GPU, torch's error for it.
    """
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
        _check_rank(settings, folder)
    keep_from_compiling(settings)
    check_patterns(settings, [module for module, _ in base.named_modules()], folder)
    return folder, settings


@contextmanager
def _named_errors(folder: Path, name: str, config: RunConfig) -> Iterator[None]:
    """Says which adapter cannot be loaded and why, in place of PEFT's and torch's errors."""
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


def can_merge(model: Any) -> bool:
    """Whether PEFT can merge the adapter of a model into its weights, tried on one layer unless that is quantized.

    A result whose base nobody else has is merged, and saved as an adapter where that is impossible.

    Args:
        model: a `PeftModel`; its weights are the same afterwards.

    Raises:
        RuntimeError: out of memory for a copy of one layer's weight.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.active_peft_config.is_prompt_learning or not hasattr(model.base_model, "merge_and_unload"):
        return False
    layer = next((one for one in model.modules() if isinstance(one, BaseTunerLayer)), None)
    if layer is None:
        return False
    weight: Any = getattr(layer.get_base_layer(), "weight", None)
    if weight is None or is_packed(weight):  # quantized layers are merged after they are loaded again
        return True
    begun = weight.detach().clone()
    try:
        layer.merge()
        layer.unmerge()
    except NOT_MERGEABLE as error:
        if is_out_of_memory(error):
            raise
        return False
    finally:
        weight.data.copy_(begun)
    return True


def encoded_prompt(model: Any) -> Any:
    """Find the encoder of a prompt that is computed from other trained weights, as in P-tuning.

    PEFT saves the vectors that it computes and not the encoder: the result can be used, but not trained further.

    Args:
        model: a `PeftModel`, or any other model.

    Returns:
        The encoder, or None where the trained vectors themselves are saved.
    """
    encoder = getattr(model, "prompt_encoder", None)
    if encoder is None or model.active_adapter not in encoder:
        return None
    trained = {name for name, one in encoder[model.active_adapter].named_parameters() if one.requires_grad}
    return encoder[model.active_adapter] if trained - SAVED_PROMPTS else None


def keep_from_compiling(settings: Any) -> None:
    """Keep PEFT from compiling its CUDA extension for BOFT where one butterfly factor makes no use of it.

    PEFT tries to for each layer, also on a machine without a GPU, and leaves `CC` and `CXX` set where it fails.

    Args:
        settings: a `peft.PeftConfig`.
    """
    if getattr(settings, "boft_n_butterfly_factor", 0) == 1:
        from peft.tuners.boft import layer

        layer._FBD_CUDA = False  # noqa: SLF001 - no public name; None means that it is not tried yet


def check_adapter_reloads(model: nn.Module) -> None:
    """Check, before training, that PEFT can save a new adapter and load all of it again.

    Some versions of PEFT drop weights of some modules, which would be noticed only after hours of training.

    Args:
        model: a `PeftModel`; its weights are the same afterwards. Any other model is accepted unchecked, and so is a
            prompt that an encoder computes, see `encoded_prompt`.

    Raises:
        ModelError: PEFT leaves weights out. The message names the modules that can be trained.
    """
    if not hasattr(model, "peft_config") or encoded_prompt(model) is not None:
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


def _check_rank(settings: Any, folder: Path) -> None:
    """Refuse damaged weights, and a rank larger than the weights allow, before PEFT allocates memory for it."""
    tensors = read_header(folder / SAFETENSORS_FILE)
    whole = next((name for name, tensor in tensors.items() if tensor.dtype in INTEGERS), None)
    if whole is not None:
        raise ModelError(
            f"{folder / SAFETENSORS_FILE} has integers as {whole[:100]} ({tensors[whole].dtype}). Expected "
            "floating-point numbers. Copy or download the adapter again."
        )
    numbers = sum(tensor.count for tensor in tensors.values())
    ranks = {"r": getattr(settings, "r", 0)} | (getattr(settings, "rank_pattern", None) or {})
    wrong = next((key for key, rank in ranks.items() if isinstance(rank, int) and rank > numbers), None)
    if wrong is not None:
        raise ModelError(
            f"{folder / 'adapter_config.json'} cannot belong to these weights: {wrong[:100]} is {ranks[wrong]:,}, and "
            f"they hold {numbers:,} numbers in total. Copy or download the adapter again."
        )


def _with_new_score(model: PreTrainedModel, settings: Any, folder: Path) -> Any:
    """Wrap a model with an adapter of a language model, and train and save the new reward head with it."""
    from peft import get_peft_model, load_peft_weights, set_peft_model_state_dict

    settings.modules_to_save = [*(settings.modules_to_save or ()), HEAD_NAME]
    settings.inference_mode = False
    head: Any = model.get_submodule(HEAD_NAME).weight
    wrapped = get_peft_model(model, settings)
    weights = load_peft_weights(str(folder), device="cpu")
    set_peft_model_state_dict(wrapped, weights | {SCORE_KEY: head})
    return wrapped


def _prompt_to_train(model: PreTrainedModel, settings: Any, folder: Path) -> Any:
    """Wrap a model with a stored prompt or prefix and train it further, which PEFT's `from_pretrained` refuses.

    Raises:
        ModelError: PEFT saved only what an encoder computed, and not the encoder.
    """
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


def adapter_settings(folder: Path) -> Any:
    """Read an adapter's config after checking it, since PEFT uses its values without a check.

    The config of a sequence classifier is returned as that of a causal model whose head `score` is saved with the
    adapter.

    Args:
        folder: contains `adapter_config.json`.

    Returns:
        A `peft.PeftConfig`.

    Raises:
        ModelError: the config is damaged, may not be read, has a value of a wrong type, or is none that PEFT knows.
        OSError: the folder is missing or cannot be listed, or the disk fails.
    """
    from peft import PeftConfig, TaskType

    path = folder / "adapter_config.json"
    again = "Copy or download the adapter again."
    check_text_files(folder)
    damaged = damaged_json(folder)
    if damaged:
        raise ModelError(damaged.replace("the model", "the adapter"))
    stored = read_json_object(path)
    odd = next(
        (key for key, kinds in FIELD_TYPES.items() if key in stored and not isinstance(stored[key], kinds)), None
    )
    if odd is not None:
        raise ModelError(f"{path} has a value of an unexpected type for {odd}: {str(stored[odd])[:50]}. {again}")
    long = next(
        (key for key in FIELD_TYPES if isinstance(stored.get(key), list) and len(stored[key]) > MAX_NAMES), None
    )
    if long is not None:
        raise ModelError(f"{path} lists {len(stored[long]):,} in {long}. Expected at most {MAX_NAMES:,}. {again}")
    try:
        settings = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise ModelError(f"{path} is not a valid adapter config: {first_line(error)} {again}") from error
    if settings.task_type == TaskType.SEQ_CLS:
        settings.task_type = TaskType.CAUSAL_LM
        settings.modules_to_save = sorted({*(settings.modules_to_save or ()), HEAD_NAME} - {"classifier"})
    return settings


def _keep_exact(wrapped: Any, folder: Path) -> None:
    """Load modules (`modules_to_save`) and rows of embeddings that were trained again in float32.

    PEFT creates them in the base's dtype.
    """
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
    """Refuse an adapter that PEFT has loaded only in part, which it reports with no more than a warning."""
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
