"""Methods that train an adapter of PEFT, as their declarations specify."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.methods.prompt import PromptOptions
from llf_core.config.name_checks.adapters import check_adapter_type
from llf_core.config.registry import method_of
from llf_core.methods.adapter_targets import adapter_targets, linear_layers, require_known, saved_modules
from llf_core.methods.method import Method, keep_trained_weights_exact
from llf_core.models.adapter_folder import keep_from_compiling
from llf_core.models.adapter_loading import encoded_prompt
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.architecture import choose_parts, frozen_modules
from llf_core.models.errors import ModelError, first_line
from llf_core.models.memory import is_out_of_memory
from llf_core.models.resolve import resolve_model
from llf_core.models.reward_model import HEAD_NAME
from llf_core.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
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


def begin_adapter(model: PreTrainedModel, config: RunConfig, make: Callable[[PreTrainedModel], PeftModel]) -> PeftModel:
    """Add a new adapter, or continue the last one in `adapter_name_or_path`; merge those before it.

    Args:
        model: all parameters as they were loaded; changed in place.
        make: given the model with frozen weights, wraps it with a new adapter.

    Returns:
        A `PeftModel` whose trained parameters are float32, bfloat16 with `pure_bf16`, and unchanged with an
            optimizer that `keeps_masters`.

    Raises:
        ModelError: an adapter that does not fit, or of a type that the method does not continue.
    """
    from llf_core.models.adapter_folder import adapter_settings, find_adapter
    from llf_core.models.adapter_loading import load_adapter
    from llf_core.models.adapter_merging import continues_adapter, merge_adapters

    _keep_scale(model)
    model.requires_grad_(requires_grad=False)
    adapters = list(config.model.adapter_name_or_path or ())
    resumed = adapters.pop() if continues_adapter(config) else None
    if resumed is not None:
        kind = adapter_settings(find_adapter(resumed, config)).peft_type
        problem = check_adapter_type(config, resumed, str(getattr(kind, "value", kind)))
        if problem is not None:
            raise ModelError(problem.message)
    model = merge_adapters(model, adapters, config)
    wrapped = make(model) if resumed is None else load_adapter(model, resumed, config, trainable=True)
    if resumed is not None:
        _check_new_tokens_trained(wrapped, config)
    _show_bias(wrapped)
    keep_trained_weights_exact(wrapped, config)
    return wrapped


def _keep_scale(model: PreTrainedModel) -> None:
    """Have RWKV evaluate with the weights that it trains with; other models are unchanged.

    It divides weights of its deeper layers in evaluation, against overflows in float16, but neither adapters nor
    4-bit weights.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


def whole_modules(model: PreTrainedModel, requested: Sequence[str]) -> list[str]:
    """Modules that are trained in full beside the adapter: `additional_target`, and the head of a reward model.

    Args:
        model: not yet wrapped.
    """
    own = [HEAD_NAME] if hasattr(model, HEAD_NAME) and HEAD_NAME not in requested else []
    return saved_modules(model, requested) + own


def check_left_for_adapters(
    model: PreTrainedModel, targets: Sequence[str], whole: Sequence[str], *, key: str, requested: Sequence[str]
) -> None:
    """Check that a target is left that is not trained whole, by itself or within a module.

    Raises:
        ModelError: none is left, so that an adapter would train nothing but these modules.
    """
    paths = [path for path, _ in model.named_modules()]
    kept = [path for path in paths if _ends(path, whole)]
    if not any(
        _ends(path, targets) and not any(path == one or path.startswith(f"{one}.") for one in kept) for path in paths
    ):
        raise ModelError(
            f"additional_target trains {', '.join(whole)} whole, which leaves no module of {key} "
            f"({', '.join(requested)}) for the adapter. Take them out of additional_target, or set "
            "finetuning_type: full."
        )


def trains_tied_weights(model: PreTrainedModel, modules: Sequence[str]) -> bool:
    """Whether embedding or head are trained whole and share one matrix, which must then stay one.

    Args:
        model: not yet wrapped.
    """
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    pair = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    names = {name for name, module in model.named_modules() if any(module is one for one in pair)}
    return tied and any(_ends(name, modules) for name in names)


def new_rows(model: PreTrainedModel, whole: Sequence[str]) -> dict[str, list[int]]:
    """Rows of new tokens in the embedding and an untied output head, for PEFT.

    Args:
        model: not yet wrapped.

    Returns:
        Token ids by the path of the module; empty if there are no new tokens. The head of a reward model has none.
    """
    added = getattr(model, "llf_new_rows", None)
    if added is None or not added.ids:
        return {}
    modules = [model.get_input_embeddings()]
    if not tied_embeddings(model) and not hasattr(model, HEAD_NAME):
        modules.append(model.get_output_embeddings())
    paths = {path: module for path, module in model.named_modules() if any(module is one for one in modules)}
    if tied_embeddings(model) and trains_tied_weights(model, whole):
        return {}
    return {path: list(added.ids) for path in paths if not _ends(path, whole)}


def tied_embeddings(model: PreTrainedModel) -> bool:
    """Whether the output head of a model shares the weight of its embedding."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def check_rows_tied(wrapped: PeftModel, *, tied: bool) -> None:
    """Check that PEFT computes logits with the trained rows too if the head has the weight of the embedding.

    Raises:
        ModelError: PEFT has not tied them, so that logits would keep the initial rows.
    """
    model = wrapped.get_base_model()
    pair = (model.get_input_embeddings(), model.get_output_embeddings())
    if tied and [hasattr(one, "token_adapter") for one in pair] == [True, False]:
        raise ModelError(
            f"Embedding and output head of {type(model).__name__} are one matrix, which PEFT does not see: it would "
            "train the new rows of the embedding alone. Set finetuning_type: full or freeze."
        )


def _show_bias(wrapped: PeftModel) -> None:
    """Give an output head with trained rows the attribute `bias` of a linear layer, which TRL reads."""
    head = wrapped.get_base_model().get_output_embeddings()
    if hasattr(head, "token_adapter"):
        # Not registered, so that the bias keeps its one name.
        object.__setattr__(head, "bias", getattr(head.token_adapter.base_layer, "bias", None))


def _check_new_tokens_trained(model: PeftModel, config: RunConfig) -> None:
    """Check that a continued adapter has the rows of all tokens that are new to the base: PEFT adds none to it.

    Adapters that train modules in full are not checked, since these have all rows.
    """
    added = getattr(model.get_base_model(), "llf_new_rows", None)
    settings = model.peft_config[model.active_adapter]
    if added is None or getattr(settings, "modules_to_save", None):
        return
    indices = getattr(settings, "trainable_token_indices", None) or {}
    stored = {number for own in (indices.values() if isinstance(indices, dict) else [indices]) for number in own}
    left = [token.text for token, number in zip(added.tokens, added.ids, strict=True) if number not in stored]
    if left:
        name = (config.model.adapter_name_or_path or ("",))[-1]
        raise ModelError(
            f"The adapter {name} is continued, and PEFT trains no rows beside it that it has not begun with: those of "
            f"{', '.join(left[:5])} would stay as they are. Set create_new_adapter: true, or add no tokens."
        )


def _ends(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


class PromptTuning(PeftTuner):
    """PEFT's prompt tuning with `prompt_init_text`.

    PEFT's own initialisation from a text would keep the path of the tokenizer in the saved adapter.
    """

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new prompt to the model, or continue the last one in `adapter_name_or_path`, see `PeftTuner.apply`.

        Raises:
            ModelError: `prompt_init_text` has no tokens.
        """
        wrapped: Any = super().apply(model)
        text = self.config.options(PromptOptions).prompt_init_text
        if text and not continues_adapter(self.config):
            import torch

            source = resolve_model(self.config.model.model_name_or_path, self.config)
            ids = load_tokenizer(source, self.config)(text, add_special_tokens=False)["input_ids"]
            if not ids:
                raise ModelError(f"prompt_init_text is {text!r}, which has no tokens. Expected some words.")
            vectors = wrapped.prompt_encoder[wrapped.active_adapter].embedding.weight
            repeated = torch.tensor(ids).repeat(-(-len(vectors) // len(ids)))[: len(vectors)]
            embeddings = model.get_input_embeddings()
            with torch.no_grad():
                vectors.copy_(embeddings(repeated.to(embeddings.weight.device)))
        return wrapped
