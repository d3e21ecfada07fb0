"""Map of the modules and layers that a config trains, before a run starts and in its events."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config import validate
from llf_core.methods.adapter_targets import BLOCK
from llf_core.methods.method import apply_method
from llf_core.models import ModelError, resolve_model
from llf_core.models.architecture import auto_class, load_architecture
from llf_core.models.checksums import is_packed, parameter_size
from llf_core.models.errors import first_line
from llf_core.models.load import with_new_tokens
from llf_core.models.model_source import resolve_trust_remote_code
from llf_core.modifiers.modifier import apply_modifiers, change_before_method

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

State = Literal["trained", "adapter", "frozen", "quantized", "not reached"]
"""State of a module's weights: `trained`, changed by an `adapter`, unchanged (`frozen`, `quantized`), or, with
adapters, a matrix of a block that has none (`not reached`).
"""
MATRIX_DIMS = 2


@dataclass(frozen=True)
class ModuleRow:
    """The modules of one name in all layers, or one module outside the layers.

    Attributes:
        module: path inside a layer, such as `self_attn.q_proj`; of a module outside the layers its whole path.
        stack: path of the list that holds the layers, such as `model.layers`; empty outside the layers.
        states: for each state the layers in it; a module outside the layers has the layer -1.
        quantized: whether its weights are quantized, with an adapter or without.
    """

    module: str
    stack: str
    states: dict[State, list[int]]
    parameters: int
    trained: int
    quantized: bool = False


@dataclass(frozen=True)
class ParameterMap:
    """Which parameters are trained."""

    rows: tuple[ModuleRow, ...]
    parameters: int
    trained: int

    def json(self) -> dict[str, Any]:
        """JSON for events and `llf parameters --json`: `parameters`, `trained`, and `rows`, with layers as ranges."""
        return {
            "parameters": self.parameters,
            "trained": self.trained,
            "rows": [
                {
                    "module": row.module,
                    "stack": row.stack,
                    "states": {state: layer_ranges(layers) for state, layers in row.states.items()},
                    "parameters": row.parameters,
                    "trained": row.trained,
                    "quantized": row.quantized,
                }
                for row in self.rows
            ],
        }


def layer_ranges(layers: list[int]) -> list[tuple[int, int]]:
    """Ranges of layers as first and last one: `[0, 1, 2, 5]` is `[(0, 2), (5, 5)]`."""
    runs: list[tuple[int, int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return runs


@dataclass
class _Module:
    parameters: int = 0
    trained: int = 0
    adapted: bool = False
    own: bool = False
    quantized: bool = False
    matrix: bool = False

    def state(self, *, adapts: bool, inside: bool) -> State:
        """State of a module; `adapts` if the method trains adapters, `inside` for a module of a layer."""
        if self.own:
            return "trained"
        if self.adapted:
            return "adapter"
        if adapts and inside and self.matrix:
            return "not reached"
        return "quantized" if self.quantized else "frozen"


@dataclass
class _Row:
    states: dict[State, list[int]] = field(default_factory=lambda: defaultdict(list))
    parameters: int = 0
    trained: int = 0
    quantized: bool = False


def parameter_map(model: nn.Module, *, quantized: bool = False) -> ParameterMap:
    """Find what is trained in a model (wrapped by PEFT or not, perhaps on `meta`) after its method was applied.

    Tied weights count once, at the first module that has them, and 4-bit weights count unpacked. `quantized`:
    whether linear layers other than the head will be quantized once the model is loaded.
    """
    modules = _modules(model, quantized=quantized)
    adapts = any(one.adapted for one in modules.values())
    rows: dict[tuple[str, str], _Row] = {}
    for path, one in modules.items():
        inside = BLOCK.match(path)
        layer, name = (-1, path) if inside is None else (int(inside["index"]), inside["rest"])
        row = rows.setdefault(("" if inside is None else inside["stack"].rstrip("."), name), _Row())
        row.states[one.state(adapts=adapts, inside=inside is not None)].append(layer)
        row.parameters += one.parameters
        row.trained += one.trained
        row.quantized |= one.quantized
    found = tuple(
        ModuleRow(name, stack, dict(row.states), row.parameters, row.trained, row.quantized)
        for (stack, name), row in rows.items()
    )
    return ParameterMap(found, sum(row.parameters for row in found), sum(row.trained for row in found))


def _modules(model: nn.Module, *, quantized: bool) -> dict[str, _Module]:
    """Modules with parameters, by path in the base model, in the order of the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    tuners = {path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    linears = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    found: dict[str, _Module] = {}
    for name, parameter in model.named_parameters():
        path, _, own_name = name.rpartition(".")
        base = _base_path(path)
        tuner = next((one for one in tuners if path == one or path.startswith(f"{one}.")), None)
        in_base = tuner is None or ".base_layer" in path[len(tuner) :] or "base_layer" in own_name
        one = found.setdefault(base if in_base else _base_path(str(tuner)), _Module())
        count = parameter_size(parameter)
        one.parameters += count
        one.trained += count if parameter.requires_grad else 0
        if not in_base:
            one.adapted = True
            continue
        one.own |= parameter.requires_grad
        one.matrix |= parameter.ndim >= MATRIX_DIMS or is_packed(parameter)
        will_be = quantized and path in linears and "lm_head" not in path
        one.quantized |= will_be or is_packed(parameter)
    return found


def _base_path(path: str) -> str:
    """Path of a module in the base model, without PEFT's wrappers."""
    parts = path.removeprefix("base_model.model.").split(".")
    if "modules_to_save" in parts:
        parts = parts[: parts.index("modules_to_save")]
    return ".".join(part for part in parts if part not in {"base_layer", "original_module", "token_adapter"})


def map_of_config(config: RunConfig) -> ParameterMap:
    """Find what a config trains, without weights or data: the model is created on the device `meta`."""
    model = _on_meta(config)
    change_before_method(model, config)
    # Initialisations from weights or data need both, and train the same. `validate` refuses no missing data.
    plain = validate({key: value for key, value in config.flat().items() if key != "lora_init"}).config
    tuned = apply_method(model, plain)
    apply_modifiers(tuned, config)  # one may train more than the method selects
    return parameter_map(tuned, quantized=config.model.quantization_bit is not None)


def _on_meta(config: RunConfig) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve_model(config.model.model_name_or_path, config, weights=False)
    if source.kind == "gguf":
        raise ModelError(f"{source.name} is a GGUF file, whose parameters are known once it is loaded.")
    trusted = resolve_trust_remote_code(source, config)
    architecture = load_architecture(source, trust_remote_code=trusted)
    kind = auto_class(architecture) or AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(architecture, trust_remote_code=trusted)
    except Exception as error:
        raise ModelError(f"No model of the architecture of {source.name} can be made: {first_line(error)}") from error
    return with_new_tokens(model, source, config)
