"""Selects the target modules of an adapter: linear layers, and experts stored as one three-dimensional parameter."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from llf_core.models.architecture import frozen_modules, multimodal_parts
from llf_core.models.checksums import (
    expert_matrices,
    expert_parameters,
    is_packed,
    is_quantized_layer,
    packed_weight,
)
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from torch import nn
    from transformers import PreTrainedModel

HEADS = {"lm_head", "output_layer", "embed_out", "score"}

CLOSE = 1e-2
"""Maximum relative distance (of norms) at which two products in bfloat16 count as the same."""
PRODUCTS = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"}
SHAPES = {"reshape", "view", "clamp", "clip", "t", "transpose", "unsqueeze", "chunk", "split", "clone", "repeat"}


@dataclass(frozen=True)
class Targets:
    """Targets of an adapter, as arguments of a PEFT config.

    Attributes:
        modules: `target_modules`, name suffixes of these modules and of no others.
        parameters: `target_parameters`, the same of parameters: experts, and weights that PEFT would mistake for
            them.
        notes: sentences for a log on what `all` leaves out, and why.
    """

    modules: list[str]
    parameters: list[str]
    notes: tuple[str, ...] = ()


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Linear layers that an adapter can target, by path, without the output head and the frozen parts.

    Quantized layers of all libraries and transformers' `Conv1D` (GPT-2) count. A subclass with its own forward
    counts only if that is the same product, unlike routers or grouped layers.
    """
    return {path: module for path, module in _all_linear_layers(model) if _multiplies(module)}


def linear_names(model: PreTrainedModel) -> list[str]:
    """Shortest name suffixes that match the linear layers of a model and no other modules, sorted, for `all`.

    E.g. `["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]`.
    """
    return _endings(linear_layers(model), _paths(model))


def adapter_targets(
    model: PreTrainedModel,
    requested: Sequence[str],
    *,
    key: str = "lora_target",
    plain: bool = True,
    parameters: bool = True,
) -> Targets:
    """Select the targets of an adapter, so that exactly the named modules are reached and trained.

    Args:
        requested: names of modules or of experts' parameters (last part or whole path), or with `all`.
        plain: whether the adapter has neither dropout, DoRA nor an initialization from the weights, which PEFT
            cannot apply to a parameter.

    Raises:
        ModelError: a name that no linear layer, embedding or expert has, with the choices; or one that PEFT puts no
            adapter on.
    """
    from torch import nn

    layers, experts = linear_layers(model), expert_parameters(model)
    whole = "all" in requested
    outside = set(frozen_modules(model))
    embeddings = {path for path, one in model.named_modules() if isinstance(one, nn.Embedding) and path not in outside}
    if not whole:
        _require(model, key, requested, {*layers, *embeddings, *experts})
        layers = {path: module for path, module in layers.items() if _is_requested(path, requested)}
        experts = {path: one for path, one in experts.items() if _is_requested(path, requested)}
    left_out = _left_out(model, set(layers))
    if left_out and not whole:
        which, why, _ = left_out[0]
        why = why.format(which=_listed(which), kind=type(model).__name__)
        raise ModelError(f"{key}: {why} Expected other names, or `all`.")
    reached = layers.keys() - {path for which, _, _ in left_out for path in which}
    notes = [f"{key}: all leaves out {_listed(which)}, {since}" for which, _, since in left_out]
    if whole and (matrices := expert_matrices(model)):
        notes.append(
            f"{key}: all leaves out {_listed(matrices)}, the weights of experts, since PEFT puts no adapter on "
            "parameters that another module slices. finetuning_type: full or freeze trains them."
        )
    renamed = _renamed(model, reached)
    quantized = {path for path in renamed if (weight := packed_weight(layers[path])) is not None and is_packed(weight)}
    reached_parameters = {*experts, *(f"{path}.weight" for path in renamed - quantized)}
    if reached_parameters and not parameters:
        if not whole and experts:
            raise ModelError(
                f"{key}: {_listed(experts)} are parameters and no modules, to which PEFT applies only LoRA. Expected "
                "other names, or finetuning_type: lora."
            )
        notes.append(
            f"{_listed(reached_parameters)} get no adapter: PEFT applies only LoRA to parameters. "
            "With finetuning_type: lora they get one."
        )
        reached_parameters = set()
    if reached_parameters and not plain:
        if not whole and experts:
            raise ModelError(
                f"{key}: {_listed(experts)} are parameters and no modules, to which PEFT applies neither "
                "lora_dropout, use_dora nor an initialization from the weights. Expected lora_dropout: 0, "
                "use_dora: false and lora_init: default, or other names."
            )
        notes.append(
            f"{_listed(reached_parameters)} get no adapter: PEFT applies neither lora_dropout, use_dora nor an "
            "initialization from the weights to parameters. With lora_dropout: 0, use_dora: false and lora_init: "
            "default they get one."
        )
        reached_parameters = set()
    if quantized:
        notes.append(f"{_listed(quantized)} get no adapter: PEFT cannot reach them in {_kind(model)} while quantized.")
    modules = reached - renamed
    if not modules | reached_parameters | (embeddings if not whole else set()):
        raise ModelError(
            f"{type(model).__name__} has no linear layer that PEFT puts an adapter on. Train it with "
            "finetuning_type: full or freeze."
        )
    modules |= set() if whole else {path for path in embeddings if _is_requested(path, requested)}
    paths = _paths(model)
    same = modules and not whole and {path for path in paths if _is_requested(path, requested)} == modules
    return Targets(
        list(requested) if same else _endings(modules, paths),
        _endings(reached_parameters, [path for path, _ in model.named_parameters()], parts=2),
        tuple(notes),
    )


def saved_modules(model: nn.Module, requested: Sequence[str]) -> list[str]:
    """PEFT's `modules_to_save` for `additional_target`; ModelError if the model does not have one of them."""
    modules = [path for path, _ in model.named_modules() if path]
    unknown = [name for name in requested if not any(_is_requested(path, (name,)) for path in modules)]
    holders = {path.split(".")[-2] for path, _ in model.named_parameters() if "." in path}
    require_known("additional_target", unknown, holders)
    return list(requested)


def _all_linear_layers(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head, outside = model.get_output_embeddings(), set(frozen_modules(model))
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):  # it computes with the weights of its layers directly
            outside |= {f"{path}.{name}" for name, _ in module.named_children()}
        linear = isinstance(module, nn.Linear | Conv1D) or is_quantized_layer(module)
        if linear and module is not head and path not in outside and path.rpartition(".")[2] not in HEADS:
            yield path, module


def _multiplies(module: Any) -> bool:
    """Whether a linear layer computes the product with its weight, tested if its class has its own forward."""
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own short name
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    own = type(module).forward not in {nn.Linear.forward, Conv1D.forward}
    weight = packed_weight(module)
    if not own or weight is None or is_packed(weight) or weight.dtype.itemsize < 2:  # noqa: PLR2004 - bytes
        return True
    x = torch.randn(2, 3, module.in_features, generator=torch.Generator().manual_seed(0)).to(module.weight)
    try:
        with torch.no_grad():
            found, wanted = module(x), F.linear(x, module.weight, module.bias)
    except Exception:  # noqa: BLE001 - a forward that wants something else is not that of a linear layer
        return False
    if not isinstance(found, torch.Tensor) or found.shape != wanted.shape:
        return False
    return found.is_meta or bool((found - wanted).norm() <= CLOSE * wanted.norm())


def _forbidden(model: PreTrainedModel, paths: Iterable[str]) -> set[str]:
    """Paths of layers that PEFT refuses by their names, such as layers of Mamba whose weights kernels read."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    check: Any = getattr(LoraModel, "_check_target_module_compatiblity", None)
    forbidden = set()
    for path in paths if check is not None else ():
        try:
            check(None, LoraConfig(), model, path.rpartition(".")[2])
        except ValueError:
            forbidden.add(path)
    return forbidden


def _left_out(model: PreTrainedModel, layers: set[str]) -> list[tuple[set[str], str, str]]:
    """Linear layers that get no adapter: paths, the message if they are requested by name, and the note for `all`."""
    forbidden = _forbidden(model, layers)
    lost = _lost(model, layers - forbidden)
    passed = {path for path in layers - forbidden - lost if _passes_by(model, path)}
    shared = _shared(model, layers - forbidden - lost - passed)
    again = f"PEFT {_peft_version()}"
    common = "have a weight in common, so that adapters on them could not be merged into it."
    found = (
        (
            forbidden,
            "PEFT puts no adapter on {which} of {kind}, since kernels use its weight directly.",
            "which PEFT puts no adapter on.",
        ),
        (
            lost,
            f"an adapter on {{which}} of {{kind}} cannot be loaded again: {again} looks for it under another name.",
            f"since {again} would not find an adapter on them again when it loads one.",
        ),
        (
            passed,
            "{kind} computes with the weight of {which} directly, so an adapter on it would not be used.",
            "since the model computes with the weight directly and would not use an adapter on it.",
        ),
        (shared, f"{{which}} of {{kind}} {common}", f"which {common}"),
    )
    return [one for one in found if one[0]]


def _passes_by(model: PreTrainedModel, path: str) -> bool:
    """Whether a layer's parent module computes with the layer's weight directly, such as Mamba's with `dt_proj`.

    An adapter beside the layer would not be trained, or be used by a quantized model only.
    """
    holder, _, name = path.rpartition(".")
    kind: Any = type(model.get_submodule(holder))
    return name in _weights_computed_with(kind)


@cache
def _weights_computed_with(kind: Any) -> frozenset[str]:
    """Names of the layers whose weights the methods of a class multiply or reshape: `self.dt_proj.weight @ x`.

    Slices do not count: BLOOM takes them to repeat the sums of a training over several devices, if asked.
    """
    found = set()
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] in {"torch", "builtins"}:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError, ValueError):  # code that has no source is not known to do it
            continue
        for node in ast.walk(tree):
            operands: list[ast.expr] = []
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
                operands = [node.left, node.right]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in PRODUCTS:
                    operands = [*node.args, *(keyword.value for keyword in node.keywords)]
                elif node.func.attr in SHAPES:
                    operands = [node.func.value]
            found |= {name for one in operands if (name := _own_weight(one)) is not None}
    return frozenset(found)


def _own_weight(node: ast.expr) -> str | None:
    match node:
        case ast.Attribute(ast.Attribute(ast.Name("self"), name), "weight"):
            return name
    return None


def _lost(model: PreTrainedModel, paths: Collection[str]) -> set[str]:
    """Paths of layers whose adapter PEFT renames on loading, to a name that the model does not have."""
    import torch
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import (
            convert_peft_adapter_state_dict_for_transformers as convert,
        )
    except ImportError:
        return set()
    keys = {f"base_model.model.{path}.lora_A.weight": path for path in paths}
    try:
        found = convert(model, LoraConfig(), {key: torch.zeros(1, 1) for key in keys}, "default")
    except Exception:  # noqa: BLE001 - then nothing is known
        return set()
    return {path for key, path in keys.items() if key not in found}


def _shared(model: PreTrainedModel, paths: Collection[str]) -> set[str]:
    """Paths of layers whose weight another layer shares, such as the repeated blocks of Zamba2.

    Merging adds the adapters of all of them to the one weight.
    """
    held = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)  # noqa: SLF001 - a parameter's own module
    return {path for path in paths if held[id(packed_weight(model.get_submodule(path)))] > 1}


def _peft_version() -> str:
    import peft

    return str(peft.__version__)


def _renamed(model: PreTrainedModel, paths: Collection[str]) -> set[str]:
    """Paths of layers whose names PEFT takes for those of experts in models of transformers 4, and so does not find.

    In these models (Qwen-MoE, DeepSeek and similar) `down_proj` means the experts, though layers without experts and
    shared experts have linear layers of that name.
    """
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:
        return set()
    renamed = set()
    for name in {path.rpartition(".")[2] for path in paths}:
        settings = LoraConfig(target_modules=[name])
        try:
            convert(settings, model, None)
        except ValueError:  # the other half of what it takes for two of one parameter is not asked for
            renamed.add(name)
        else:
            renamed |= set() if name in (settings.target_modules or ()) else {name}
    return {path for path in paths if path.rpartition(".")[2] in renamed}


def _require(model: PreTrainedModel, key: str, requested: Sequence[str], paths: Collection[str]) -> None:
    unknown = [name for name in requested if not any(_is_requested(path, (name,)) for path in paths)]
    odd = [name for name in unknown if any(_is_requested(path, (name,)) for path, _ in _all_linear_layers(model))]
    if odd:
        raise ModelError(
            f"{key}: {', '.join(odd)} of {type(model).__name__} computes more than a product with its weight, so "
            "an adapter beside it would not be one. Expected other names, or `all`."
        )
    head = [name for name in unknown if name in HEADS or _is_head(model, name)]
    if head:
        raise ModelError(
            f"{key}: {', '.join(head)} is the output head, which gets no adapter. Expected other names; "
            f"additional_target: {','.join(head)} trains it whole."
        )
    choices = {_last(path) for path in paths}
    require_known(key, unknown, choices | {"all"})


def _is_head(model: PreTrainedModel, name: str) -> bool:
    head = model.get_output_embeddings()
    return any(module is head and _is_requested(path, (name,)) for path, module in model.named_modules())


def _is_requested(path: str, requested: Iterable[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in requested)


def _paths(model: nn.Module) -> list[str]:
    """Paths of all modules outside of frozen parts."""
    outside = set(frozen_modules(model))
    return [path for path, _ in model.named_modules() if path and path not in outside]


def _endings(paths: Collection[str], among: Iterable[str], parts: int = 1) -> list[str]:
    """Shortest suffixes of paths, of at least `parts` parts, that no other path of the model has."""
    wanted = set(paths)
    others: set[str] = set()
    for path in among:
        if path not in wanted:
            split = path.split(".")
            others.update(".".join(split[at:]) for at in range(len(split)))
    found = set()
    for path in wanted:
        split = path.split(".")
        ends = (".".join(split[-count:]) for count in range(min(parts, len(split)), len(split) + 1))
        found.add(next((end for end in ends if end not in others and not end.partition(".")[0].isdigit()), path))
    return sorted(found)


def _last(path: str) -> str:
    """Last part of a path that is not a number."""
    return next((part for part in reversed(path.split(".")) if not part.isdigit()), path)


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(sorted({".".join(path.removesuffix(".weight").split(".")[-2:]) for path in paths}))


def _kind(model: PreTrainedModel) -> str:
    return str(model.config.model_type)


BLOCK = re.compile(r"^(?P<stack>(?:\w+\.)*?)(?P<index>\d+)\.(?P<rest>.+)$")


def block_count(model: PreTrainedModel) -> int:
    """Number of transformer blocks, from the model's config; ModelError if it does not have it."""
    text_config = model.config.get_text_config()
    for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers"):
        count = getattr(text_config, key, None)
        if count:
            return int(count)
    raise ModelError(
        f"{type(model).__name__} does not say how many layers it has, so its layers cannot be frozen one by one. "
        "Train it with finetuning_type lora or full."
    )


def block_list(model: PreTrainedModel) -> nn.ModuleList:
    """The module list of the language model's transformer blocks; ModelError if it is not found."""
    from torch import nn

    depth, encoders = block_count(model), multimodal_parts(model)
    for path, module in model.named_modules():
        listed = isinstance(module, nn.ModuleList) and len(module) == depth and path not in encoders
        if listed and next(module.parameters(), None) is not None:
            assert isinstance(module, nn.ModuleList)  # noqa: S101 - for the type
            return module
    raise ModelError(f"{type(model).__name__} keeps its {depth} layers in no list, so none can be inserted.")


def block_of(parameter: str) -> tuple[int, str] | None:
    """Split `model.layers.3.mlp.up_proj.weight` into `(3, "mlp.up_proj.weight")`; None outside the blocks."""
    found = BLOCK.match(parameter)
    return None if found is None else (int(found["index"]), found["rest"])


def block_modules(parameters: Iterable[str]) -> set[str]:
    """Names of modules in blocks, for `freeze_trainable_modules`."""
    names: set[str] = set()
    for parameter in parameters:
        inside = block_of(parameter)
        if inside is not None:
            names.update(inside[1].split(".")[:-1])
    return {name for name in names if not name.isdigit()}


def outer_modules(parameters: Iterable[str]) -> set[str]:
    """Names of modules with parameters outside the blocks, e.g. `embed_tokens`, `norm`, for `freeze_extra_modules`."""
    return {parameter.split(".")[-2] for parameter in parameters if block_of(parameter) is None and "." in parameter}


def require_known(key: str, requested: Iterable[str], known: set[str]) -> None:
    """Check that the model has all named modules; ModelError lists those that are missing and the possible names."""
    missing = [name for name in requested if name not in known]
    if missing:
        raise ModelError(
            f"{key}: the model has no {', '.join(missing)}. Choose from: {', '.join(sorted(known)) or 'none'}."
        )
