"""Methods that train an adapter of PEFT, as their declarations specify."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import method_of
from llf_core.methods.adapter_targets import adapter_targets, linear_layers
from llf_core.methods.decoder_blocks import require_known
from llf_core.methods.method import Method
from llf_core.methods.peft_adapter import (
    begin_adapter,
    check_left_for_adapters,
    check_rows_tied,
    new_rows,
    tied_embeddings,
    trains_tied_weights,
    whole_modules,
)
from llf_core.models.adapter_folder import keep_from_compiling
from llf_core.models.adapter_loading import encoded_prompt
from llf_core.models.architecture import choose_parts, frozen_modules
from llf_core.models.errors import ModelError, first_line
from llf_core.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.config.declaration import Tuner


HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")
"""Config keys of the number of attention heads that PEFT knows, which prefix vectors need."""


class PeftTuner(Method):
    """Trains the adapter of PEFT that `MethodDeclaration.tuner` names."""

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new adapter to the model, or continue the last one in `adapter_name_or_path`.

        Returns:
            A `PeftModel` in which only the adapter, `additional_target`, rows of new tokens and the head of a reward
                model are trainable, in the precision of `begin_adapter`. `llf_notes` on its base are sentences on
                what `all` leaves out.
        """
        self._model = begin_adapter(model, self.config, self._wrap)
        return self._model

    def _wrap(self, model: PreTrainedModel) -> PeftModel:
        from peft import get_peft_model

        config = self.config
        choose_parts(model, config)
        declared = method_of(config)
        assert declared.tuner is not None, declared.name  # noqa: S101 - declared together with the implementation
        problem = declared.check_shapes(config, _layer_shapes(model)) if declared.check_shapes else None
        if problem is not None and problem.severity == "error":
            raise ModelError(problem.message)
        tuner = declared.tuner(config)
        if declared.prompts(config) and not any(model.config.get_text_config().to_dict().get(key) for key in HEADS):
            raise ModelError(
                f"{type(model).__name__} has no attention heads, and PEFT's {tuner.peft_type} trains vectors that they "
                "attend to. Expected another method, such as lora."
            )
        settings, tied = self.settings(model, tuner), tied_embeddings(model)
        keep_from_compiling(settings)
        try:
            wrapped = get_peft_model(model, settings)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"PEFT {version('peft')} cannot put {tuner.peft_type} on {type(model).__name__}: {first_line(error)}"
            ) from error
        _check_factors(wrapped, tuner)
        check_rows_tied(wrapped, tied=tied)
        return wrapped

    def settings(self, model: PreTrainedModel, tuner: Tuner) -> PeftConfig:
        """Create PEFT's config of a new adapter; methods with more options override it.

        Args:
            model: not yet wrapped. Its `llf_notes` are set to what was left out of linear layers.

        Raises:
            ModelError: the model has no such modules or cannot train them with this adapter, PEFT refuses the
                options, or does not have this type of adapter.
        """
        from peft import TaskType

        kind = _config_class(tuner.peft_type)
        known = {field.name for field in dataclasses.fields(kind)}
        arguments: dict[str, Any] = dict(tuner.options)
        whole = whole_modules(model, self.config.method.additional_target or ())
        if tuner.targets is not None and tuner.any_module and "all" not in tuner.targets:
            _check_modules(model, tuner)
            arguments["target_modules"] = list(tuner.targets)
        elif tuner.targets is not None:
            targets = adapter_targets(
                model,
                tuner.targets,
                key=tuner.target_key,
                plain=tuner.on_parameters,
                parameters="target_parameters" in known and _wraps_parameters(tuner.peft_type),
            )
            model.llf_notes = targets.notes
            arguments["target_modules"] = targets.modules
            if targets.parameters:
                arguments["target_parameters"] = targets.parameters
            else:
                check_left_for_adapters(model, targets.modules, whole, key=tuner.target_key, requested=tuner.targets)
        if whole:
            _check_whole(model, whole, tuner, known)
            arguments["modules_to_save"] = whole
            if trains_tied_weights(model, whole):
                arguments["ensure_weight_tying"] = True
        if rows := new_rows(model, whole):
            if "trainable_token_indices" not in known:
                raise ModelError(
                    f"PEFT's {tuner.peft_type} does not train the embeddings of new tokens. Set finetuning_type: lora."
                )
            arguments["trainable_token_indices"] = rows
        if "exclude_modules" in known and (frozen := frozen_modules(model)):
            arguments["exclude_modules"] = frozen
        try:
            return kind(task_type=TaskType.CAUSAL_LM, **arguments)
        except Exception as error:
            raise ModelError(
                f"PEFT {version('peft')} refuses the options of {tuner.peft_type}: {first_line(error)}"
            ) from error

    def state(self) -> dict[str, Tensor]:
        """Weights of a prompt's encoder by name, of any shape; PEFT saves only its output."""
        encoder = encoded_prompt(self._model)
        return {} if encoder is None else dict(encoder.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the weights of a prompt's encoder by name, of any shape."""
        encoder = encoded_prompt(self._model)
        if encoder is not None:
            encoder.load_state_dict(state)


def _config_class(peft_type: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    try:
        return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)]
    except (ValueError, KeyError):
        raise ModelError(
            f"PEFT {version('peft')} has no adapter of the type {peft_type}. Expected another method, or another "
            "version of PEFT."
        ) from None


def _wraps_parameters(peft_type: str) -> bool:
    """Whether PEFT's tuner wraps single parameters; AdaLoRA has `target_parameters` in its config, but refuses them."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import PeftType

    create = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(peft_type)]._create_and_replace  # noqa: SLF001 - the only sign
    parameters = inspect.signature(create).parameters
    return "parameter_name" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _check_factors(wrapped: PeftModel, tuner: Tuner) -> None:
    """Refuse a BOFT adapter with fewer butterfly factors than requested, which PEFT creates without its extension."""
    factors = tuner.options.get("boft_n_butterfly_factor", 1)
    made = next((one.shape[0] for name, one in wrapped.named_parameters() if ".boft_R." in name), factors)
    if made != factors:
        raise ModelError(
            f"boft_n_butterfly_factor is {factors}, which needs PEFT's CUDA extension, and it could not be compiled "
            "here. Set it to 1, or install ninja and the CUDA toolkit (nvcc)."
        )


def _layer_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Shapes `(out, in)` of the linear layers of a model by the name of the weight, quantized layers included."""
    found: dict[str, tuple[int, ...]] = {}
    for path, layer in linear_layers(model).items():
        one: Any = layer
        # Conv1D of GPT-2 keeps its weight transposed
        found[f"{path}.weight"] = (
            (one.out_features, one.in_features) if hasattr(one, "in_features") else tuple(one.weight.shape[::-1])
        )
    return found


def _check_modules(model: PreTrainedModel, tuner: Tuner) -> None:
    """Refuse names that no module of the model has."""
    paths = {path for path, _ in model.named_modules() if path}
    unknown = [name for name in tuner.targets or () if not any(f".{path}".endswith(f".{name}") for path in paths)]
    last = {path.rpartition(".")[2] for path in paths}
    require_known(tuner.target_key, unknown, {"all", *(name for name in last if not name.isdigit())})


def _check_whole(model: PreTrainedModel, whole: list[str], tuner: Tuner, known: set[str]) -> None:
    """Refuse modules that PEFT cannot train whole beside this adapter."""
    if "modules_to_save" not in known:
        raise ModelError(
            f"PEFT's {tuner.peft_type} trains no other module whole, but {', '.join(whole)} is to be. Set "
            "finetuning_type: lora."
        )
    if "ensure_weight_tying" not in known and trains_tied_weights(model, whole):
        raise ModelError(
            f"additional_target: embedding and output head of {type(model).__name__} are one matrix, which PEFT keeps "
            "one only with LoRA. Set finetuning_type: lora, or leave them out of additional_target."
        )
