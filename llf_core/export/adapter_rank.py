"""Adapters of another rank: a LoRA that is shrunk, or one that is extracted from two whole models.

Both are nearest products of a rank in the Frobenius norm (Eckart and Young, 1936), matrix by matrix, computed from the
files alone.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import percent
from llf_core.export.exports import check_destination, hidden_folder, put
from llf_core.export.request import ExportError
from llf_core.models.model_folder import read_json_object, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from llf_core.evaluation.worker_process import Progress

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
OVERSAMPLING = 16
"""Additional columns of the random projection; Halko et al., arXiv 0909.4061, section 4.2, advise 5 or 10."""
POWER_ITERATIONS = 4
"""Power iterations suppress small singular values (arXiv 0909.4061, algorithm 4.4)."""
KEPT = frozenset({"modules_to_save", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "lora_bias"})
"""Parts of a LoRA whose rank cannot be changed."""


@dataclass(frozen=True)
class RankError:
    """Error of a change of rank.

    Attributes:
        errors: relative error of each matrix by its path: Frobenius norm of what is missing, divided by that of the
            whole change; 0 to 1.
        total: the same over all matrices together.
        left_out: weights that differ between two models and that the LoRA does not change, such as norms, biases,
            embeddings and the head.
    """

    errors: dict[str, float]
    total: float
    left_out: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The share of the squared norm that is kept, `1 - total²`, and the worst matrix."""
        worst = max(self.errors, key=lambda name: self.errors[name])
        found = (
            f"{percent(1 - self.total**2, 1)} of the change is kept (relative error {self.total:.3f}); the worst of "
            f"{len(self.errors):,} matrices is {worst} with {self.errors[worst]:.3f}."
        )
        if self.left_out:
            found += f" {len(self.left_out):,} other weights differ and are not in it, such as {self.left_out[0]}."
        return found


def shrink_adapter(adapter: Path, folder: Path, rank: int, progress: Progress = lambda *_: None) -> RankError:
    """Write a LoRA of a smaller rank that is nearest to a given one, in the Frobenius norm of each layer's change.

    Its largest singular values (Eckart and Young, 1936), from the QR factors of `B` and `Aᵀ`, whose core is `[rank,
    rank]`.

    Raises:
        ExportError: the folder holds no plain LoRA, an alpha is not valid, the rank is not positive or not below its
            own, or the destination is not empty.
    """
    import torch

    folder, settings = folder.absolute(), _lora_settings(adapter)
    if not 1 <= rank < int(settings["r"]):
        raise ExportError(f"The rank is {rank}. Expected 1 to {settings['r'] - 1}: the adapter has {settings['r']}.")
    check_destination(folder, overwrite=False)
    pairs = _pairs(adapter)
    written: dict[str, Tensor] = {}
    errors: dict[str, tuple[float, float]] = {}
    for done, (path, (down, up)) in enumerate(pairs.items()):
        progress("Shrinking the adapter", done, len(pairs))
        left, core_left = torch.linalg.qr(up.double())
        right, core_right = torch.linalg.qr(down.double().T)
        u, s, vh = torch.linalg.svd(core_left @ core_right.T)
        scale = _scale(settings, path, down.shape[0])
        factors = left @ u[:, :rank] * math.copysign(1, scale), s[:rank] * abs(scale), vh[:rank] @ right.T
        written |= _written(path, factors, rank, down.dtype)
        errors[path] = float((s[rank:] * scale).square().sum()), float((s * scale).square().sum())
    _write(folder, settings, rank, written)
    return _rank_error(errors)


def extract_adapter(
    base: Path, tuned: Path, folder: Path, rank: int, progress: Progress = lambda *_: None
) -> RankError:
    """Write the difference of two whole models as a LoRA, by randomized SVD (arXiv 0909.4061, algorithms 4.4 and 5.1).

    Raises:
        ExportError: a folder holds no weights in safetensors, the models have other shapes or no linear layer in which
            they differ, the rank is not positive, or the destination is not empty.
    """
    if rank < 1:
        raise ExportError(f"The rank is {rank}. Expected an integer of at least 1.")
    folder = folder.absolute()
    check_destination(folder, overwrite=False)
    first, second = _tensors(base), _tensors(tuned)
    if first.keys() != second.keys():
        odd = min(first.keys() ^ second.keys())
        raise ExportError(f"Only one of the models has {odd}. Expected two models of the same architecture.")
    written: dict[str, Tensor] = {}
    errors: dict[str, tuple[float, float]] = {}
    left_out = []
    for done, name in enumerate(first):
        progress("Comparing the models", done, len(first))
        old, new = _read(first, name), _read(second, name)
        if old.shape != new.shape:
            raise ExportError(f"{name} has the shapes {list(old.shape)} and {list(new.shape)}. Expected the same ones.")
        change = new.double() - old.double()
        if not change.any():
            continue
        if not _is_linear(name, old):
            left_out.append(name)
            continue
        path = name.removesuffix(".weight")
        factors = _nearest(change, min(rank, *change.shape))
        written |= _written(path, factors, rank, new.dtype)
        u, s, vh = factors
        errors[path] = float((change - (u * s) @ vh).square().sum()), float(change.square().sum())
    if not written:
        raise ExportError(f"{base} and {tuned} do not differ in any linear layer. Expected a model that was tuned.")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "target_modules": sorted(errors),
        "bias": "none",
        "inference_mode": True,
    }
    _write(folder, settings, rank, written)
    found = _rank_error(errors)
    return RankError(found.errors, found.total, tuple(left_out))


def _lora_settings(adapter: Path) -> dict[str, Any]:
    if not (adapter / SETTINGS).is_file() or not (adapter / WEIGHTS).is_file():
        raise ExportError(f"{adapter} has no {SETTINGS} and {WEIGHTS}. Expected the folder of a LoRA.")
    settings = read_json_object(adapter / SETTINGS)
    kind = settings.get("peft_type")
    odd = next((key for key in ("use_dora", "alora_invocation_tokens", "target_parameters") if settings.get(key)), None)
    if kind != "LORA" or odd or not isinstance(settings.get("r"), int):
        raise ExportError(f"{adapter} is {f'a LoRA with {odd}' if odd else f'of type {kind}'}. Expected a plain LoRA.")
    _check_alphas(adapter / SETTINGS, settings)
    return settings


def _check_alphas(path: Path, settings: dict[str, Any]) -> None:
    alphas = settings.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise ExportError(f"`alpha_pattern` in {path} is {str(alphas)[:60]}. Expected an alpha for each layer.")
    for key, alpha in [("lora_alpha", settings.get("lora_alpha", 8)), *alphas.items()]:
        if not _is_finite(alpha):
            raise ExportError(f"The alpha `{key[:60]}` in {path} is {str(alpha)[:60]!r}. Expected a number.")
        try:
            re.compile(_layers(key))
        except (re.error, OverflowError, RecursionError) as error:
            raise ExportError(
                f"`alpha_pattern` in {path} has {key[:60]!r}. Expected a regular expression: {error}."
            ) from None


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _pairs(adapter: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Matrices A `[rank, in]` and B `[out, rank]` of each layer."""
    from safetensors.torch import load_file

    weights = load_file(adapter / WEIGHTS)
    odd = next((name for name in weights if KEPT & set(name.split(".")) or "lora_" not in name), None)
    if odd is not None:
        raise ExportError(f"{adapter} has {odd}, whose rank cannot be changed. Expected matrices of LoRA alone.")
    paths = [name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")]
    if not paths or {f"{path}.lora_{one}.weight" for path in paths for one in "AB"} != weights.keys():
        raise ExportError(f"{adapter / WEIGHTS} is incomplete. Expected matrices A and B of each layer of a LoRA.")
    return {
        path.removeprefix(PREFIX): (weights[f"{path}.lora_A.weight"], weights[f"{path}.lora_B.weight"])
        for path in paths
    }


def _layers(key: str) -> str:
    """Regular expression for a key of `alpha_pattern`, as in peft's `get_pattern_key`."""
    return rf"(.*\.)?({key})$"


def _scale(settings: dict[str, Any], path: str, own_rank: int) -> float:
    """Factor of a layer's product: `alpha / rank`, or `alpha / sqrt(rank)` of rsLoRA (arXiv 2312.03732)."""
    alphas = settings.get("alpha_pattern") or {}
    alpha = next(
        (value for key, value in alphas.items() if re.match(_layers(key), path)), settings.get("lora_alpha", 8)
    )
    return float(alpha) / (math.sqrt(own_rank) if settings.get("use_rslora") else own_rank)


def _nearest(change: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors `[out, rank]`, values `[rank]` and vectors `[rank, in]` of the nearest matrix of a rank."""
    import torch

    width = min(rank + OVERSAMPLING, *change.shape)
    generator = torch.Generator().manual_seed(0)
    basis = change @ torch.randn(change.shape[1], width, dtype=change.dtype, generator=generator)
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(basis)[0]
        basis = change @ torch.linalg.qr(change.T @ basis)[0]
    basis = torch.linalg.qr(basis)[0]
    u, s, vh = torch.linalg.svd(basis.T @ change, full_matrices=False)
    return (basis @ u)[:, :rank], s[:rank], vh[:rank]


def _written(path: str, factors: tuple[Tensor, Tensor, Tensor], rank: int, dtype: Any) -> dict[str, Tensor]:
    """Both matrices of a layer with the square roots of the singular values, padded with zeros to the rank."""
    import torch

    u, s, vh = factors
    roots, missing = s.sqrt(), rank - len(s)
    down = torch.nn.functional.pad(roots[:, None] * vh, (0, 0, 0, missing))
    up = torch.nn.functional.pad(u * roots, (0, missing))
    name = f"{PREFIX}{path}"
    return {
        f"{name}.lora_A.weight": down.to(dtype).contiguous(),
        f"{name}.lora_B.weight": up.to(dtype).contiguous(),
    }


def _write(folder: Path, settings: dict[str, Any], rank: int, weights: dict[str, Tensor]) -> None:
    """Write an adapter whose products have the factor 1, under a hidden name that is changed at the end."""
    from safetensors.torch import save

    own = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    work = hidden_folder(folder)
    work.mkdir(parents=True)
    try:
        # Not by `save_file`, whose error on a full disk is no OSError
        (work / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        (work / SETTINGS).write_text(json.dumps(settings | own | {"init_lora_weights": True}, indent=2), "utf-8")
        put(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tensors(folder: Path) -> dict[str, Path]:
    from safetensors import safe_open

    names, _, _ = weight_files([path.name for path in folder.iterdir()] if folder.is_dir() else [])
    if not names:
        raise ExportError(f"{folder} has no weights in safetensors. Expected the folder of a whole model.")
    found: dict[str, Path] = {}
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), folder / name)
    return dict(sorted(found.items()))


def _read(files: dict[str, Path], name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(files[name], framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _is_linear(name: str, weight: Tensor) -> bool:
    """Whether a weight is that of a linear layer in a block: embeddings and head have no number in their names."""
    matrix = 2
    return weight.dim() == matrix and name.endswith(".weight") and any(part.isdigit() for part in name.split("."))


def _rank_error(errors: dict[str, tuple[float, float]]) -> RankError:
    missing, whole = (sum(column) for column in zip(*errors.values(), strict=True))
    return RankError(
        {path: math.sqrt(lost / all_of) if all_of else 0.0 for path, (lost, all_of) in errors.items()},
        math.sqrt(missing / whole) if whole else 0.0,
    )
