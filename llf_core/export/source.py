"""The model of an export as loaded: a base, an adapter, several combined, or a reward model."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.chat.target import loading_config
from llf_core.config.read_config import read
from llf_core.config.stored_quantization import quantizer_of_files
from llf_core.export.compare import LOGIT_LIMITS, compare_all, compare_scores, logits_check
from llf_core.export.ollama import write_modelfile
from llf_core.export.probes import CONVERSATIONS, PROMPTS, SCORED, TEXTS
from llf_core.export.reference import Reference, logits_of, measure_reference, rendered
from llf_core.export.request import ExportError
from llf_core.generation.generate import add_end_tokens, end_tokens
from llf_core.models.adapter_folder import adapter_settings, find_adapter
from llf_core.models.adapter_loading import load_adapter, load_beside
from llf_core.models.adapter_merging import can_merge, merge_adapters
from llf_core.models.architecture import auto_class
from llf_core.models.card import load_lines
from llf_core.models.checksums import DEFAULT_ADAPTER
from llf_core.models.device import plan_device
from llf_core.models.errors import first_line
from llf_core.models.gguf_cache import dequantized_folder
from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.header_check import stored_dtype, stored_tensors
from llf_core.models.load import fix_generation_config, load_model, read_architecture, scaled_architecture
from llf_core.models.memory import release_free_memory
from llf_core.models.model_folder import read_config
from llf_core.models.model_source import ModelSource, resolve_trust_remote_code
from llf_core.models.new_tokens import NewRows
from llf_core.models.quantize import UNQUANTIZED
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_model import RewardModel, add_reward_head, build_classifier, classifier_pad_token_id
from llf_core.models.step_forecast import free_memory
from llf_core.models.tokenizer import load_processor, load_tokenizer
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from llf_core.config import RunConfig
    from llf_core.export.receipt import PlainResult, ReceiptCheck
    from llf_core.export.request import ExportRequest

TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
FLOAT32_BYTES = 4

MEMORY_SHARE = 0.8
"""Share of the free memory for weights in float32; the rest is for activations and logits."""

BESIDES_WEIGHTS = 64 * 2**20
"""Bytes for tokenizer, configs and receipt."""


class ExportSource:
    """A model to export, as it answers in a chat: the base with its adapters, not merged.

    The base is loaded unquantized, in float32 if that fits into the memory, so that changes differ from rounding.

    Attributes:
        model: the live model: a transformers model, or a `PeftModel` with the adapters active. `release` removes it.
        compute_dtype: dtype in which the model computes, e.g. `float32`; what was written is computed in it too.
        merged_before: adapters that were merged into the base before those of the export.
        merging: the comparison of the merged model with the live one; None where nothing was merged.
        written: logits after the model was changed to what is written, such as rounded to a dtype, of the shapes of
            `Reference.logits`; None before.
    """

    def __init__(self, request: ExportRequest, progress: Callable[[str, int, int], object]) -> None:
        """Load the model and measure it."""
        self.request = request
        progress("Finding the model", 0, 0)
        settings = read(request.target.config).values | dict.fromkeys(UNQUANTIZED)
        begun = list(settings.get("adapter_name_or_path") or ())
        names = [one.adapter for one in request.adapters]
        settings |= {"use_cpu": request.device == "cpu", "adapter_name_or_path": [*begun, *names] or None}
        self.config: RunConfig = loading_config(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
        self.base: ModelSource = resolve_model(self.config.model.model_name_or_path, self.config)
        self.adapter_folders: list[Path] = [find_adapter(name, self.config) for name in names]
        self._check_quantized()
        plan = plan_device(self.config)
        self.threads = plan.threads
        self.compute_dtype = "float32" if self._fits_float32(plan.device) else plan.dtype
        self.tokenizer: PreTrainedTokenizerBase = self._load_tokenizer()
        progress("Loading the weights", 0, 0)
        plan = replace(plan, dtype=self.compute_dtype, autocast=None)
        base = merge_adapters(load_model(self.base, self.config, plan), begun, self.config)
        self._apply_template(base)
        self.processor: ProcessorMixin | None = load_processor(self.base, self.config, self.tokenizer)
        self.loader = getattr(auto_class(base.config), "__name__", "AutoModelForCausalLM")
        self.merged_before = begun
        self._resized = bool(getattr(base, "llf_new_rows", NewRows()).ids)
        self.model: Any = self._with_adapters(base, names)
        self.model.eval()
        self.reference: Reference = self._measure(progress)
        self.merging: ReceiptCheck | None = None
        self.written: list[Tensor] | None = None

    def merge(self, progress: Callable[[str, int, int], object]) -> Any:
        """Merge the adapters into the weights, in place; afterwards `model` is a plain transformers model.

        Its generation config ends an answer where the chat does. If there were adapters, `merging` compares the result
        with the live model, before its weights are rounded.
        """
        self._merge_adapters(progress)
        add_end_tokens(self.model, end_tokens(self.model, self.tokenizer) or [])
        return self.model

    def _merge_adapters(self, progress: Callable[[str, int, int], object]) -> None:
        if hasattr(self.model, "peft_config"):
            if not can_merge(self.model):
                kind = self.model.active_peft_config.peft_type.value
                raise ExportError(
                    f"An adapter of type {kind} cannot be merged into the weights. Expected the format adapter."
                )
            self.model = self.model.merge_and_unload()
            self.model.eval()
            made = self._logits("Merging", progress)
            share = LOGIT_LIMITS[self.compute_dtype]
            self.merging = replace(logits_check(self.reference.logits, made, share, ""), name="merging")

    def load_written(self, folder: Path) -> None:
        """Replace the live adapter by a written one, which was converted or rounded."""
        base = self.model.unload()
        for key in ("peft_config", "_hf_peft_config_loaded"):
            base.__dict__.pop(key, None)
        self.model = load_adapter(base, str(folder), self.config)
        self.model.eval()

    def measure_written(self, progress: Callable[[str, int, int], object]) -> None:
        """Measure the model, changed to what is written, as `written`."""
        self.written = self._logits("Measuring what is written", progress)

    def _measure(self, progress: Callable[[str, int, int], object]) -> Reference:
        return measure_reference(self.model, self.tokenizer, progress)

    def _logits(self, what: str, progress: Callable[[str, int, int], object]) -> list[Tensor]:
        total = len(self.reference.prompts)
        return logits_of(self.model, self.reference.sequences, lambda done: progress(what, done, total))

    def compare(self, found: PlainResult, dtype: str, *, lossy: bool = False) -> list[ReceiptCheck]:
        """Compare by `compare_all` what plain transformers computed with the live model."""
        return compare_all(
            self.reference,
            found,
            compute_dtype=self.compute_dtype,
            dtype=dtype,
            written=self.written,
            lossy=lossy,
        )

    def load_lines(self, base: Path | None = None) -> str:
        """Python lines of the card that load the export in its folder, an adapter over its public base or `base`."""
        adapter = self.request.format == "adapter"
        given = self.classifier_arguments
        labels = None if given is None else ", ".join(f"{key}={value!r}" for key, value in given.items())
        return load_lines(
            self.base,
            adapter=adapter,
            loader=self.loader,
            classifier_arguments=labels,
            rope=(self.rope_changes() or None) if adapter else None,
            resized=self._resized,
            stops=given is None,
            trust=self.trusts_code(),
            base=base,
        )

    @property
    def classifier_arguments(self) -> dict[str, Any] | None:
        """Arguments that load the base of a reward model as a classifier; None if it generates."""
        return None

    @property
    def padding_source(self) -> ModelSource | None:
        """The base, whose padding token `config.json` keeps; None for a classifier."""
        return self.base

    def save_modelfile(self, folder: Path, from_: str, adapter: str = "") -> None:
        """Write Ollama's `Modelfile`; `adapter` follows ADAPTER and is empty for a whole model."""
        write_modelfile(self.model, self.tokenizer, self.reference.stops, folder, from_, adapter)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer with its chat template, or the processor that has it."""
        (self.processor or self.tokenizer).save_pretrained(folder)

    def save_generation_config(self, folder: Path) -> None:
        """Write the generation config of an adapter's base, which gets all tokens that end an answer."""
        base = self.model.get_base_model()
        add_end_tokens(base, self.reference.stops)
        fix_generation_config(base)
        base.generation_config.save_pretrained(folder)

    def release(self) -> None:
        """Remove the model from memory."""
        self.model = None
        release_free_memory()

    def dtype(self) -> str:
        """Dtype of the written weights, as torch names it.

        `auto` is that in which the base is stored, and bfloat16 for a GGUF file or a dtype not in `TORCH_NAMES`.
        """
        if self.request.dtype != "auto":
            return self.request.dtype
        if self.base.kind == "gguf":
            return "bfloat16"
        return TORCH_NAMES.get(stored_dtype(self.base.folder) or "", "bfloat16")

    def trusts_code(self) -> bool:
        """Whether the model's own Python code is used."""
        return resolve_trust_remote_code(self.base, self.config)

    def rope_changes(self) -> dict[str, Any]:
        """What `rope_scaling` sets in the text config of the base, which an adapter does not store."""
        if self.config.model.rope_scaling is None:
            return {}
        scaled, scaling = scaled_architecture(self.base, self.config)
        if scaling is None:
            return {}
        plain = read_architecture(self.base, self.config).get_text_config().to_dict()
        return {key: value for key, value in scaled.get_text_config().to_dict().items() if plain.get(key) != value}

    def plain_base(self) -> Path:
        """Folder from which plain transformers loads the base; a GGUF file is dequantized to `compute_dtype` for it."""
        if self.base.kind != "gguf":
            return self.base.folder
        import torch

        found = dequantized_folder(self.base.path, getattr(torch, self.compute_dtype))
        if found is None:
            raise ExportError(f"There is no room under LLF_HOME for the weights of {self.base.name}. Free space there.")
        return found

    def facts(self) -> dict[str, Any]:
        """What was exported, for the receipt."""
        target = self.request.target
        return {
            "run": target.run_id or None,
            "step": target.step,
            "name": target.name,
            "base": self.base.portable_name or self.base.name,
            "revision": self.base.revision,
            "sha256": self.base.sha256,
            "adapters": [{"name": one.name or one.adapter, "weight": one.weight} for one in self.request.adapters],
            "combination": self.request.combination if len(self.request.adapters) > 1 else None,
            "compute_dtype": self.compute_dtype,
        }

    def _check_quantized(self) -> None:
        if self.base.kind == "gguf" or self.request.format == "adapter":
            return
        found = quantizer_of_files(read_config(self.base.folder))
        if found is not None and not found.unpacks:
            raise ExportError(
                f"The weights of {self.base.name} are stored quantized ({found.name}), so an adapter cannot be merged "
                "into them. Expected the format adapter, or an unquantized base: set model_name_or_path to it."
            )

    def _fits_float32(self, device: str) -> bool:
        if self.base.kind == "gguf":
            count = sum(map(math.prod, read_gguf_header(self.base.path).shapes.values()))
        else:
            count = sum(one.count for one in stored_tensors(self.base.folder).values())
        needed = FLOAT32_BYTES * count
        return needed <= MEMORY_SHARE * free_memory(device)

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer that was saved with the target's adapter, or else the base's."""
        folder = next((one for one in self.adapter_folders if (one / "tokenizer_config.json").is_file()), None)
        source = self.base if folder is None else ModelSource(str(folder), folder, "folder")
        return load_tokenizer(source, self.config)

    def _apply_template(self, model: Any) -> None:
        from llf_core.data.chat_template import choose_template

        named = self.config.data.template or (None if self.tokenizer.chat_template else self.request.target.template)
        if named is not None:
            template = choose_template(named, self.tokenizer)
            template.apply_to(self.tokenizer)
            add_end_tokens(model, template.end_ids(self.tokenizer))

    def _with_adapters(self, base: Any, names: list[str]) -> Any:
        weights = [one.weight for one in self.request.adapters]
        if not names:
            return base
        first = load_adapter(base, names[0], self.config)
        if len(names) == 1 and weights == [1.0]:
            return first

        return combine_adapters(first, self.adapter_folders, weights, self.request, self.config)


def bytes_of_weights(model: Any, itemsize: int) -> int:
    """Bytes of a model's weights in a file, where tied weights are stored once and floats take `itemsize` bytes."""
    unique = {id(one): one for one in model.state_dict(keep_vars=True).values()}.values()
    return sum(one.numel() * (itemsize if one.is_floating_point() else one.element_size()) for one in unique)


def check_room(folder: Path, needed: int) -> None:
    """Check that `needed` bytes of weights and `BESIDES_WEIGHTS` fit on the disk.

    Raises:
        ExportError: the disk has too little space.
    """
    needed += BESIDES_WEIGHTS
    free = shutil.disk_usage(folder).free
    if needed > free:
        missing, has, wants = (" ".join(size(amount)) for amount in (needed - free, free, needed))
        raise ExportError(
            f"The export takes {wants} and the disk of {folder} has {has} free. Free {missing} more, or choose "
            "another folder."
        )


COMBINED = "combined"

LEFT_OUT = ("use_dora", "use_rslora", "lora_bias", "modules_to_save", "trainable_token_indices")
"""Options that PEFT's combination ignores."""

SEED = 0
"""Seed of DARE (arXiv 2311.03099), so that an export can be repeated."""


def combine_adapters(
    model: PeftModel, folders: Sequence[Path], weights: Sequence[float], request: ExportRequest, config: RunConfig
) -> PeftModel:
    """Load further adapters beside the first, and activate their weighted combination; the others are removed.

    TIES: arXiv 2306.01708; DARE: arXiv 2311.03099; PEFT's `add_weighted_adapter`.

    Raises:
        ExportError: an adapter is no LoRA or has options that PEFT's combination ignores, or PEFT cannot combine them.
    """
    import torch

    _check(folders)
    names = [DEFAULT_ADAPTER, *(f"adapter_{number}" for number in range(1, len(folders)))]
    weights = list(weights)
    for name, folder in zip(names[1:], folders[1:], strict=True):
        load_beside(model, str(folder), name, config)
    try:
        one = len(names) == 1
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            tuner: Any = model.base_model
            kind = "cat" if one else request.combination
            tuner.add_weighted_adapter(names, weights, COMBINED, combination_type=kind, density=request.density)
        model.set_adapter(COMBINED)
        for name in names:
            model.delete_adapter(name)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ExportError(f"PEFT cannot combine these adapters ({request.combination}): {first_line(error)}") from error
    model.requires_grad_(requires_grad=False)
    return model


def _check(folders: Sequence[Path]) -> None:
    """Refuse what PEFT's combination would ignore."""
    for folder in folders:
        settings = adapter_settings(folder)
        kind = settings.peft_type.value
        if kind != "LORA":
            raise ExportError(
                f"{folder} is an adapter of type {kind}. Adapters with weights are combined where all are LoRAs: "
                "convert it with --format adapter --rank R first."
            )
        odd = next((key for key in LEFT_OUT if getattr(settings, key, None)), None)
        if odd is not None:
            raise ExportError(
                f"The adapter {folder} has {odd}, which PEFT's combination of adapters leaves out. Expected plain "
                "LoRAs: export it as merged alone, and combine the others on that model."
            )
        if getattr(settings, "bias", "none") != "none":
            raise ExportError(f"The adapter {folder} has bias: {settings.bias}. Expected plain LoRAs with bias: none.")


CLASSIFIER = "AutoModelForSequenceClassification"


class RewardSource(ExportSource):
    """A reward model to export: base, adapter and head, which transformers loads as a classifier with one label.

    The live model scores as in training and in `llf serve`; `reference.logits` are its scores, each `[1, 1]`.
    """

    def merge(self, progress: Callable[[str, int, int], object]) -> Any:
        """Merge the adapter into the weights, in place; afterwards `model` is a classifier."""
        self._merge_adapters(progress)
        self.model = build_classifier(self.model).eval()
        self.model.config.pad_token_id = self._padding
        return self.model

    def compare(self, found: PlainResult, dtype: str, *, lossy: bool = False) -> list[ReceiptCheck]:  # noqa: ARG002 - no lossy format takes a reward model
        """Compare the scores by plain transformers with those of the live model, by `compare_scores`."""
        return compare_scores(
            self.reference, found, compute_dtype=self.compute_dtype, dtype=dtype, written=self.written
        )

    @property
    def classifier_arguments(self) -> dict[str, Any] | None:
        """Number of labels, and the padding token at which transformers reads no score."""
        return {"num_labels": 1, "pad_token_id": self._padding}

    @property
    def padding_source(self) -> ModelSource | None:
        """None: the classifier keeps its own padding token."""
        return None

    def save_modelfile(self, folder: Path, from_: str, adapter: str = "") -> None:
        """Write nothing: Ollama runs no reward models."""

    def save_generation_config(self, folder: Path) -> None:
        """Write nothing: a reward model generates no text."""

    def _with_adapters(self, base: object, names: list[str]) -> object:
        add_reward_head(base, None if self.base.kind == "gguf" else self.base.folder)
        self.loader = CLASSIFIER
        self._padding = classifier_pad_token_id(self.tokenizer)
        return super()._with_adapters(base, names)

    def _measure(self, progress: Callable[[str, int, int], object]) -> Reference:
        reader = RewardModel(self.model, self.tokenizer)
        prompts = [reader.tokens(_scored(self.tokenizer, one, answer)) for one in PROMPTS for answer in SCORED]
        scores = self._scores(prompts, "Measuring the live model", progress)
        return Reference(
            prompts,
            [[] for _ in prompts],
            scores,
            [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS],
            [rendered(self.tokenizer, one) for one in CONVERSATIONS],
            str(self.tokenizer.chat_template) if self.tokenizer.chat_template else None,
            [],
        )

    def _logits(self, what: str, progress: Callable[[str, int, int], object]) -> list[Tensor]:
        return self._scores(self.reference.prompts, what, progress)

    def _scores(
        self, prompts: Sequence[Sequence[int]], what: str, progress: Callable[[str, int, int], object]
    ) -> list[Tensor]:
        """Scores `[1, 1]` of tokenized conversations, one forward pass for each."""
        import torch

        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        head = None if "SequenceClassification" in type(self.model).__name__ else causal.score
        model = RewardModel(self.model, self.tokenizer, head, None, self._padding)
        found = model.scores_of_ids(prompts, 1, lambda done, total: progress(what, done, total))
        return [torch.tensor([[one]]) for one in found]


def _scored(tokenizer: Any, prompt: str, answer: str) -> Any:
    """A conversation to score, or one text where the tokenizer has no chat template."""
    if not tokenizer.chat_template:
        return f"{prompt}\n{answer}"
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
