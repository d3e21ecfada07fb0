"""Reward models: finds and loads them in the formats in which they are saved, and computes scores."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config import RunConfig
from llf_core.config.name_checks.models import is_path, may_be_hub_id, meant_instead, shown_name
from llf_core.config.paths import expanded, is_there
from llf_core.models.adapter_loading import SAFETENSORS_FILE, adapter_settings
from llf_core.models.device import plan_device
from llf_core.models.errors import ModelError, first_line
from llf_core.models.load import load_model
from llf_core.models.mixed_dtypes import autocast_mixed_dtypes
from llf_core.models.model_folder import REDOWNLOAD, read_config
from llf_core.models.model_source import ModelSource
from llf_core.models.progress_bars import no_progress_bars
from llf_core.models.quantize import quantization_config
from llf_core.models.remote_code import resolve_trust_remote_code
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_head import HEAD_NAME, HEAD_WEIGHT, apply_head, classifier_pad_token_id
from llf_core.models.stored_tensors import read_header
from llf_core.models.tokenizer import load_tokenizer
from llf_core.runs import RunFolder, home
from llf_core.runs.config_file import run_config
from llf_core.runs.folder import RUN_ID
from llf_core.untrusted import real_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    Conversation = Sequence[Mapping[str, Any]]

VALUE_HEAD = "value_head.safetensors"
"""File of LLaMA-Factory's reward head: `v_head.summary.weight` and `.bias`."""
MAX_QUOTED = 60
"""Characters of a text that a message quotes."""
LOADING_KEYS = (
    "model_name_or_path", "trust_remote_code", "cache_dir", "hub", "allow_pickle", "use_fast_tokenizer", "flash_attn",
    "use_cpu", "bf16", "fp16", "pure_bf16",
)  # fmt: skip
"""Config keys that determine how any model is loaded."""
EXPECTED = (
    "Expected a run of stage rm or its output, an adapter of a classifier with its `score`, a sequence classifier "
    "with one label, or what LLaMA-Factory saves with a value_head.safetensors."
)


@dataclass(frozen=True)
class RewardModel:
    """A reward model: a sequence classifier of transformers, or a causal model with a separate head.

    Attributes:
        model: the classifier, or the causal model, perhaps with adapters.
        tokenizer: tokenizer of the reward model.
        head: linear layer from hidden states `[H]` to a scalar; None if the model is a classifier.
        adapter: adapter that computes scores, where the model is shared; else None.
        ignored_token_id: padding token id that the reward model was trained with; a score is never read at it. None for
            none.
        flattens: whether the model takes flattened batches, see `acceleration.patching.install`.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    head: nn.Module | None = None
    adapter: str | None = None
    ignored_token_id: int | None = None
    flattens: bool = False

    def rewards(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score tokenized texts, as TRL-style trainers and PPO do with a batch.

        Active adapter, training mode and gradients of the model are the same afterwards, since the policy may share it.

        Args:
            input_ids: token ids `[batch, seq]`, int64, of the reward model's tokenizer, padded on either side; each row
                with at least one token.
            attention_mask: `[batch, seq]`, 0 at padding.

        Returns:
            Scores `[batch]`, float32, detached.

        Raises:
            RuntimeError: out of memory, or both are on another device than the model.
            IndexError: a token id is beyond the embedding.
        """
        import torch

        order = attention_mask.argsort(dim=1, descending=True, stable=True)  # padding to the right
        ids, mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        with torch.no_grad(), self._scoring_state(), autocast_mixed_dtypes(self.model):
            return self._by_classifier(ids, mask) if self.head is None else self._by_head(self.head, ids, mask)

    def scores(
        self,
        texts: Sequence[str | Conversation],
        batch_size: int = 8,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> list[float]:
        """Score conversations or plain texts.

        Answers of different runs are compared by these scores.

        Args:
            texts: conversations that end with the answer to score, as messages with `role` and `content`; a string is
                scored as it is.
            batch_size: texts per forward pass.
            progress: called with the number of scored texts and the total; what it raises passes through.

        Returns:
            A score per text, in order; empty without texts.

        Raises:
            ModelError: a conversation is given and the tokenizer has no chat template, or a score is not finite.
            ValueError: `batch_size` is less than 1.
            RuntimeError: out of memory.
            jinja2.TemplateError: the chat template refuses a conversation.
        """
        return self.scores_of_ids([self.tokens(text) for text in texts], batch_size, progress)

    def scores_of_ids(
        self,
        ids: Sequence[Sequence[int]],
        batch_size: int = 8,
        progress: Callable[[int, int], object] = lambda *_: None,
    ) -> list[float]:
        """Score tokenized texts, for callers that have tokens already. Batches are by length, with little padding.

        Args:
            ids: token ids `[seq]` of the reward model's tokenizer, one sequence of at least one token per text.
            batch_size: texts per forward pass.
            progress: called with the number of scored texts and the total; what it raises passes through.

        Returns:
            A score per text, in order; empty without texts.

        Raises:
            ModelError: a score is not finite.
            ValueError: `batch_size` is less than 1.
            RuntimeError: out of memory.
        """
        import torch

        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}. Expected at least 1.")
        device = next(self.model.parameters()).device
        by_length = sorted(range(len(ids)), key=lambda one: -len(ids[one]))
        found = [0.0] * len(ids)
        for start in range(0, len(ids), batch_size):
            chosen = by_length[start : start + batch_size]
            rows = [torch.tensor(ids[one]) for one in chosen]
            batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            for one, score in zip(chosen, self.rewards(batch.to(device), mask.to(device)).tolist(), strict=True):
                if not math.isfinite(score):
                    said = " ".join(self.tokenizer.decode(list(ids[one]), skip_special_tokens=True).split())
                    raise ModelError(
                        f'The reward model gives "{said[-MAX_QUOTED:]}" the score {score}. Expected a finite number. '
                        "Check the reward model with this text, or use another one."
                    )
                found[one] = score
            progress(min(start + batch_size, len(ids)), len(ids))
        return found

    def tokens(self, text: str | Conversation) -> list[int]:
        """Tokenize a text or a conversation with the reward model's own tokenizer and chat template.

        A policy's tokens mean nothing to a reward model with another tokenizer.

        Args:
            text: a string, or messages with `role` and `content`.

        Returns:
            Token ids `[seq]`.

        Raises:
            ModelError: a conversation is given, and the tokenizer has no chat template.
            jinja2.TemplateError: the chat template refuses a conversation.
        """
        if isinstance(text, str):
            plain: list[int] = self.tokenizer(text)["input_ids"]
            return plain
        if not self.tokenizer.chat_template:
            raise ModelError(
                "The reward model's tokenizer has no chat template, so it cannot score conversations. Expected plain "
                "texts."
            )
        messages: Any = list(text)
        read: Any = self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
        ids: list[int] = read["input_ids"]
        return ids

    def _by_classifier(self, ids: Tensor, mask: Tensor) -> Tensor:
        import torch

        padding = self.model.config.get_text_config().pad_token_id
        if padding is None and len(ids) > 1:  # without padding, all texts of a batch must have one length
            return torch.cat([self._by_classifier(*pair) for pair in zip(ids[:, None], mask[:, None], strict=True)])
        if padding is None:
            ids, mask = ids[:, : int(mask.sum())], mask[:, : int(mask.sum())]
        else:
            ids = ids.masked_fill(mask == 0, padding)
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0].float()

    def _by_head(self, head: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        import torch

        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        hidden: Tensor = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        counts = mask.bool() if self.ignored_token_id is None else mask.bool() & (ids != self.ignored_token_id)
        last = (torch.arange(ids.shape[1], device=ids.device) * counts).argmax(1)
        return apply_head(head, hidden[torch.arange(len(ids), device=ids.device), last])

    @contextmanager
    def _scoring_state(self) -> Iterator[None]:
        """Context manager: evaluation mode with the reward model's adapter. Restores the previous state."""
        training = [module for module in self.model.modules() if module.training]
        trained = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        before = self.model.active_adapter if self.adapter is not None else None
        for module in training:
            module.training = False
        if self.adapter is not None:
            self.model.set_adapter(self.adapter, inference_mode=True)
        try:
            yield
        finally:
            if self.adapter is not None:
                self.model.set_adapter(before)
            for parameter, was in trained:
                parameter.requires_grad = was
            for module in training:
                module.training = True


def load_reward_model(
    name: str,
    config: RunConfig | None = None,
    *,
    shared_model: Any = None,
    adapter: str = "reward",
    quantization_bit: int | None = None,
) -> RewardModel:
    """Load a reward model.

    PPO and evaluations accept reward models in all formats in which they are saved.

    Args:
        name: run of stage rm, its `output/`, another folder, or a hub id.
        config: for the device, precision, `cache_dir`, `trust_remote_code` and similar keys; None for the defaults.
        shared_model: PEFT model with the adapter's base (such as the policy). The reward model is loaded as another
            adapter of it, which saves the memory of a second base, and its head is kept separate. The active adapter
            does not change.
        adapter: name of that adapter.
        quantization_bit: bits of the weights of a separate model, 4 or 8; None if not quantized.

    Returns:
        The reward model, frozen.

    Raises:
        ModelError: the reward model does not exist, is no reward model, or does not fit the model it is loaded onto.
        UntrustedCodeError: Python code of the model would run, and the user has not allowed it.
        ConfigError: it is the result of a run whose config can no longer be read.
        OSError: a file cannot be read, or a cache cannot be written.
        MemoryError: out of memory; on a GPU, torch's error for it.
        PluginError: two installed packages declare the same name or key.
        TooMuchCodeError: a file of a model's Python code is larger than a person could review, or not a regular file.
        jinja2.TemplateError: the chat template of an adapter refuses a conversation of one question and answer.
    """
    alone = _settings(config, quantization_bit)
    folder = find_reward_model(name, alone)
    if not (folder / "adapter_config.json").is_file():
        if shared_model is not None:
            raise _whole_model(name)
        return _whole(name, folder, alone)
    head, skips_padding = _head_of(name, folder)
    if shared_model is None:
        source = resolve_model(_adapter_base(folder), alone)
        model: Any = load_model(source, alone, plan_device(alone))
        tokenizer, of = _tokenizer(folder, source, alone), None
    else:
        model, of = shared_model, adapter
        tokenizer = _tokenizer(folder, None, alone)
    model = _with_adapter(model, name, folder, of)
    head.to(model.device).requires_grad_(requires_grad=False)
    return RewardModel(model, tokenizer, head, of, classifier_pad_token_id(tokenizer) if skips_padding else None)


def _whole_model(name: str) -> ModelError:
    return ModelError(f"{name} is a whole model, so it cannot be loaded as an adapter.")


def find_reward_model(name: str, config: RunConfig) -> Path:
    """Find the folder of a reward model and check its files, without loading it, so that a mistake is found early.

    Args:
        name: see `load_reward_model`.
        config: for `hub` and `cache_dir`.

    Returns:
        Folder with the adapter or model; of a run, its `output/`.

    Raises:
        ModelError: there is none, or its files have no reward head.
        OSError: a file cannot be read, or the hub's cache cannot be written.
    """
    folder = _folder_of(name, config)
    adapter = (folder / "adapter_config.json").is_file()
    if (folder / VALUE_HEAD).is_file():
        return folder
    if adapter and (folder / SAFETENSORS_FILE).is_file():
        good = any(key.endswith(f".{HEAD_WEIGHT}") for key in read_header(folder / SAFETENSORS_FILE))
    elif (folder / "config.json").is_file():
        kinds = read_config(folder).get("architectures")
        good = isinstance(kinds, list) and any("SequenceClassification" in str(one) for one in kinds)
    else:
        good = adapter
    if not good:
        raise ModelError(f"{name} is not a reward model: it has no reward head. {EXPECTED}")
    return folder


def _local(name: str) -> Path:
    folder = expanded(name)
    if not is_there(folder) and RUN_ID.fullmatch(name) and (home() / "runs" / name).is_dir():
        return home() / "runs" / name
    return folder


def config_of_run(name: str) -> RunConfig | None:
    """Config of the run that trained a reward model, to evaluate on the data that it was trained on.

    Args:
        name: see `load_reward_model`.

    Returns:
        The config; None if there is no such run or reward model.

    Raises:
        ConfigError: the config can no longer be read.
        OSError: the config cannot be opened, for example without permission.
        PluginError: two installed packages declare the same name or key.
    """
    folder = _local(name)
    run = RunFolder(folder)
    return run_config(run) if run.config.is_file() else _config_of_result(folder)


def _folder_of(name: str, config: RunConfig) -> Path:
    folder = _local(name)
    if name.strip() and is_there(folder) and folder.is_dir():
        run = RunFolder(folder)
        if not run.config.is_file():
            return folder
        if not run.output.is_dir():
            raise ModelError(f"{run.id} has no output yet. Expected a finished run. Wait for it, or resume it.")
        return run.output
    if is_path(name) or "/" not in name or not may_be_hub_id(name):
        meant = meant_instead(name, config.model.cache_dir)
        raise ModelError(f"No reward model at {shown_name(name)}.{meant} {EXPECTED}")
    from llf_core.models.hub import hub_adapter

    return hub_adapter(name, config)


def _settings(config: RunConfig | None, quantization_bit: int | None) -> RunConfig:
    """Config for loading a frozen model by itself. With a given config, the number of threads is already set."""
    import torch

    kept = (
        {} if config is None else {key: config.get(key) for key in LOADING_KEYS} | {"threads": torch.get_num_threads()}
    )
    values = {key: value for key, value in kept.items() if value is not None}
    return RunConfig.load(
        values | {"dataset": "unused", "finetuning_type": "lora", "quantization_bit": quantization_bit}
    )


def _whole(name: str, folder: Path, config: RunConfig) -> RewardModel:
    """Load a reward model that is not an adapter."""
    import torch
    from safetensors import SafetensorError
    from torch import nn
    from transformers import AutoModelForSequenceClassification

    source = ModelSource(name, folder, "folder")
    plan = plan_device(config)
    if (folder / VALUE_HEAD).is_file():
        model: Any = load_model(source, config, plan)
        return RewardModel(model, load_tokenizer(source, config), _value_head(name, folder).to(model.device))
    bits = quantization_config(config, plan)
    trusted = resolve_trust_remote_code(source, config)
    arguments: dict[str, Any] = {"dtype": plan.torch_dtype, "trust_remote_code": trusted}
    if bits is not None:
        arguments |= {"quantization_config": bits, "device_map": {"": plan.place}}
    try:
        with no_progress_bars():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **arguments
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{name} cannot be loaded: {first_line(error)} {EXPECTED}") from error
    if info.get("missing_keys"):
        raise ModelError(
            f"{name} lacks the weights {', '.join(sorted(info['missing_keys'])[:3])}, which would be randomly "
            "initialized."
        )
    if model.config.num_labels != 1:
        raise ModelError(f"{name} is a classifier with {model.config.num_labels} labels. {EXPECTED}")
    model.requires_grad_(requires_grad=False)
    model = model if bits is not None else model.to(plan.device)
    tokenizer = load_tokenizer(source, config)
    if not type(model).__module__.startswith("transformers.") or not isinstance(
        getattr(model, HEAD_NAME, None), nn.Linear
    ):
        return RewardModel(model, tokenizer)  # its own code finds the token at which it reads a score
    head = model.score.to(torch.float32)
    return RewardModel(model, tokenizer, head, None, model.config.get_text_config().pad_token_id)


def _head_of(name: str, folder: Path) -> tuple[nn.Linear, bool]:
    """Head of a reward model that is an adapter, and whether its score is read at the last non-padding token."""
    if (folder / VALUE_HEAD).is_file():
        return _value_head(name, folder), False
    weights = _adapter_weights(name, folder)
    found = [value for key, value in weights.items() if key.endswith(f".{HEAD_NAME}.weight")]
    if not found:  # names in a pickle are known only after loading it
        raise ModelError(f"{name} is not a reward model: it has no reward head. {EXPECTED}")
    return _linear(name, found[0], None), True


def _adapter_weights(name: str, folder: Path) -> dict[str, Tensor]:
    """Weights of an adapter by their names in PEFT's files, of any shape.

    Raises:
        ModelError: the file is damaged, or a pickle contains more than tensors.
    """
    from pickle import UnpicklingError

    from peft import load_peft_weights
    from safetensors import SafetensorError

    try:
        weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    except (SafetensorError, UnpicklingError, EOFError, ValueError, RuntimeError) as error:
        if "memory" in str(error):
            raise
        raise ModelError(
            f"The weights of the adapter {name} are damaged, or contain more than tensors: {first_line(error)} "
            f"{REDOWNLOAD}"
        ) from error
    return weights


def _value_head(name: str, folder: Path) -> nn.Linear:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(folder / VALUE_HEAD)
    except SafetensorError as error:
        raise ModelError(f"{VALUE_HEAD} of {name} is damaged: {first_line(error)}. {REDOWNLOAD}") from error
    if "v_head.summary.weight" not in stored:
        raise ModelError(f"{VALUE_HEAD} of {name} has no v_head.summary.weight. {EXPECTED}")
    return _linear(name, stored["v_head.summary.weight"], stored.get("v_head.summary.bias"))


def _linear(name: str, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    import torch
    from torch import nn

    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):  # noqa: PLR2004
        raise ModelError(f"{name} has a reward head of the shape {list(weight.shape)}. {EXPECTED}")
    if len(weight) != 1:
        raise ModelError(f"{name} is a classifier with {len(weight)} labels. {EXPECTED}")
    made = nn.Linear(weight.shape[1], 1, bias=bias is not None, dtype=torch.float32)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def reward_model_base(name: str, config: RunConfig, base: ModelSource) -> ModelSource:
    """Find the base model of a reward model that is an adapter, and whether it is the policy's base.

    If it is, both share one base in memory.

    Args:
        name: see `load_reward_model`.
        config: for the hub.
        base: expected base model. It is returned if the adapter names it or its folder.

    Returns:
        `base`, or the other base model.

    Raises:
        ModelError: the reward model does not exist or is no adapter, or its base differs and does not exist.
        ConfigError: it is the result of a run whose config can no longer be read.
        OSError: a file cannot be read, or a cache cannot be written.
        PluginError: two installed packages declare the same name or key.
    """
    folder = find_reward_model(name, _settings(config, None))
    if not (folder / "adapter_config.json").is_file():
        raise _whole_model(name)
    wanted = _adapter_base(folder)
    if wanted in {base.name, base.portable_name} or real_path(expanded(wanted)) == real_path(base.folder):
        return base
    try:
        found = resolve_model(wanted, config)
    except ModelError as error:
        if wanted.rstrip("/").rpartition("/")[2] == base.name.rstrip("/").rpartition("/")[2]:
            return base  # the folder was moved
        raise ModelError(
            f"The reward model {name} is an adapter of {wanted}, not of {base.name}, and that base is missing: {error}"
        ) from error
    same = real_path(found.path) == real_path(base.path) or (found.sha256 is not None and found.sha256 == base.sha256)
    return base if same else found


def _config_of_result(folder: Path) -> RunConfig | None:
    """Config of the run whose result is in a folder, which says more than the result's own files.

    Args:
        folder: `output` of a run, or any other folder.

    Returns:
        The config; None if it is not the result of a run.

    Raises:
        ConfigError: the config can no longer be read.
        OSError: the config cannot be opened, for example without permission.
        PluginError: two installed packages declare the same name or key.
    """
    run = RunFolder(folder.parent)
    return run_config(run) if folder == run.output and run.config.is_file() else None


def _adapter_base(folder: Path) -> str:
    """Name of the base model of an adapter, with which the adapter is loaded.

    Args:
        folder: folder of the adapter.

    Returns:
        For the result of a run, the name in the run's config; else the one in the adapter's config.

    Raises:
        ModelError: the adapter does not name its base, or its config is damaged.
        ConfigError: it is the result of a run whose config can no longer be read.
        OSError: a config cannot be read, for example without permission.
        PluginError: two installed packages declare the same name or key.
    """
    config = _config_of_result(folder)
    if config is not None:
        return config.model.model_name_or_path
    base: str | None = adapter_settings(folder).base_model_name_or_path
    if not base:
        raise ModelError(f"The adapter in {folder} does not name the model it was trained for.")
    return base


def _with_adapter(model: Any, name: str, folder: Path, adapter: str | None) -> Any:
    """Load another adapter onto a model, without the adapter's head."""
    from peft import get_peft_model, set_peft_model_state_dict

    settings = adapter_settings(folder)
    settings.modules_to_save = sorted({*(settings.modules_to_save or ())} - {HEAD_NAME}) or None
    settings.inference_mode = True
    weights = _adapter_weights(name, folder)
    weights = {key: value for key, value in weights.items() if not key.endswith(f".{HEAD_NAME}.weight")}
    try:
        if adapter is None:
            model, adapter = get_peft_model(model, settings), "default"
        else:
            model.add_adapter(adapter, settings)
        result = set_peft_model_state_dict(model, weights, adapter)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"The reward model {name} does not fit its base: {first_line(error)}") from error
    apart = [*result.unexpected_keys, *(key for key in result.missing_keys if f".{adapter}." in key)]
    if apart:
        raise ModelError(
            f"The reward model {name} does not fit its base: {len(apart)} weights do not match, the first is "
            f"{apart[0]}. It was trained for {settings.base_model_name_or_path}."
        )
    for key, parameter in model.named_parameters():
        if f".{adapter}." in key:
            parameter.requires_grad = False
    return model


def _tokenizer(folder: Path, source: ModelSource | None, config: RunConfig) -> PreTrainedTokenizerBase:
    """Tokenizer that was saved with an adapter, or else its base's."""
    if (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(ModelSource(str(folder), folder, "folder"), config)
    return load_tokenizer(source or resolve_model(_adapter_base(folder), config), config)
