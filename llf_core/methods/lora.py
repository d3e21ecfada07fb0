"""LoRA (arXiv 2106.09685) with initializations from weights or data, LoRA+ (2402.12354) and AdaLoRA (2303.10512)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from llf_core.config.declarations.methods.lora import (
    CHANGES_BASE,
    DORA_IN_8_BITS,
    EIGHT_BITS,
    READS_DATA,
    AdaLoRAOptions,
    LoRAOptions,
    stored_alpha,
)
from llf_core.methods.peft_tuner import PeftTuner
from llf_core.models.adapter_merging import continues_adapter
from llf_core.models.checksums import DEFAULT_ADAPTER
from llf_core.models.errors import ModelError
from llf_core.models.resolve import resolve_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from llf_core.config.declaration import Tuner
    from llf_core.optimizers.optimizer import ParameterGroup


EVA_PASSES = 5
"""Passes over the sampled examples after which EVA gives up."""


class LoRA(PeftTuner):
    """LoRA, initialized at random, from the weights (PiSSA, OLoRA, CorDA, LoftQ) or from activations (EVA)."""

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new adapter to the model, or continue the last one in `adapter_name_or_path`, see `PeftTuner.apply`.

        Raises:
            ModelError: an initialization does not fit the model or the run, or DoRA with 8-bit weights on a CPU.
        """
        quantized = self.config.model
        eight = (quantized.quantization_bit, quantized.quantization_method) == (EIGHT_BITS, "bnb")
        if eight and self.config.options(LoRAOptions).use_dora and model.device.type == "cpu":
            raise ModelError(DORA_IN_8_BITS)
        wrapped: Any = super().apply(model)
        init = "" if continues_adapter(self.config) else self.config.options(LoRAOptions).lora_init
        if init == "eva":
            self._init_from_activations(wrapped)
        elif init == "loftq":
            self._init_from_rounding(wrapped)
        # PiSSA, OLoRA and CorDA take from the base what the adapter begins as; `finish` needs it.
        self._initial: dict[str, Tensor] = {}
        if init in CHANGES_BASE:
            self._initial = {
                name: one.detach().clone()
                for name, one in wrapped.named_parameters()
                if ".lora_A." in name or ".lora_B." in name
            }
        return wrapped

    def settings(self, model: PreTrainedModel, tuner: Tuner) -> Any:
        """PEFT's config of a new adapter, see `PeftTuner.settings`; CorDA runs some examples through the model first.

        EVA with the same rank everywhere (`rho` 1): arXiv 2410.07170. CorDA in its mode `kpm`, which keeps the
        model's knowledge of the examples: arXiv 2406.05223.
        """
        init = self.config.options(LoRAOptions).lora_init
        if init not in READS_DATA:
            return super().settings(model, tuner)
        import torch
        from peft.tuners.lora.config import CordaConfig, EvaConfig
        from peft.tuners.lora.corda import preprocess_corda

        if init == "eva":  # with the same rank everywhere
            return super().settings(model, replace(tuner, options={**tuner.options, "eva_config": EvaConfig(rho=1.0)}))
        made: Any = super().settings(
            model, replace(tuner, options={**tuner.options, "corda_config": CordaConfig(corda_method="kpm")})
        )

        def run() -> None:
            with torch.no_grad():
                for batch in self._batches():
                    model(**batch, use_cache=False)

        training = model.training
        preprocess_corda(model, made, run_model=run)
        model.train(training)
        return made

    def parameter_groups(self, model: nn.Module, groups: list[ParameterGroup]) -> list[ParameterGroup]:
        """Give the matrices B and the embeddings learning rates of their own (LoRA+, arXiv 2402.12354).

        As PEFT's `create_loraplus_optimizer`: A and whole matrices at the learning rate, B and vectors at
        `loraplus_lr_ratio` times it, adapters of embeddings at `loraplus_lr_embedding`. Without `loraplus_lr_ratio`
        the groups are unchanged.
        """
        options = self.config.options(LoRAOptions)
        ratio = options.loraplus_lr_ratio
        if ratio is None:
            return groups
        rate = self.config.optimizer.learning_rate
        names = {parameter: name for name, parameter in model.named_parameters()}
        found: dict[tuple[float, float], list[Any]] = {}
        for group in groups:
            for parameter in group["params"]:
                name = names[parameter]
                if ".lora_embedding_" in name:
                    own = options.loraplus_lr_embedding
                else:
                    own = rate * ratio if ".lora_B." in name or parameter.ndim == 1 else rate
                found.setdefault((own, group["weight_decay"]), []).append(parameter)
        found = {(rate, groups[0]["weight_decay"]): [], **found}  # its rate is the one that is logged
        return [{"params": own, "weight_decay": decay, "lr": at} for (at, decay), own in found.items() if own]

    def finish(self) -> None:
        """Convert an adapter over a changed base to a plain LoRA of twice the rank over the original base.

        Only for initializations that change the base (PiSSA, OLoRA, CorDA). The update B A - B₀ A₀ is one product of
        [B, -B₀] and [A; A₀] (PiSSA, arXiv 2404.02948, appendix C), so that PEFT loads the result on the published
        model.
        """
        if not self._initial:
            return
        import torch

        settings: Any = self._model.peft_config[DEFAULT_ADAPTER]
        rank = settings.r
        with torch.no_grad():
            for path, layer in self._layers_of(self._model):
                begun = {
                    kind: self._initial[f"{path}.{kind}.{DEFAULT_ADAPTER}.weight"] for kind in ("lora_A", "lora_B")
                }
                scale, base = layer.scaling[DEFAULT_ADAPTER], layer.get_base_layer()
                taken = scale * begun["lora_B"].float() @ begun["lora_A"].float()
                turned = taken.T if getattr(layer, "fan_in_fan_out", False) else taken
                base.weight.data = (base.weight.data.float() + turned).to(base.weight.dtype)
                down, up = layer.lora_A[DEFAULT_ADAPTER], layer.lora_B[DEFAULT_ADAPTER]
                down.weight.data = torch.cat([down.weight.data, begun["lora_A"]])
                up.weight.data = torch.cat([up.weight.data, -begun["lora_B"]], dim=1)
                down.out_features = up.in_features = 2 * rank
                layer.r[DEFAULT_ADAPTER], layer.lora_alpha[DEFAULT_ADAPTER] = 2 * rank, self._doubled(settings)
        settings.lora_alpha, settings.r = self._doubled(settings), 2 * rank
        settings.init_lora_weights, settings.corda_config = True, None
        self._initial = {}

    @staticmethod
    def _doubled(settings: Any) -> float:
        """Alpha that keeps the scale of an adapter at twice its rank."""
        return stored_alpha(settings.lora_alpha * (2**0.5 if settings.use_rslora else 2))

    @staticmethod
    def _layers_of(wrapped: Any) -> Iterator[tuple[str, Any]]:
        for path, module in wrapped.named_modules():
            if DEFAULT_ADAPTER in getattr(module, "lora_A", ()):
                yield path, module

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        if self.sample is None:
            others = " and ".join(sorted(READS_DATA))
            raise ModelError(
                f"lora_init: {self.config.options(LoRAOptions).lora_init} reads training data, which a model beside "
                f"the trained one does not have. Expected an initialisation other than {others}."
            )
        yield from self.sample()

    def _init_from_activations(self, wrapped: Any) -> None:
        """EVA (arXiv 2410.07170): initializes A with the principal components of each layer's inputs."""
        from peft import initialize_lora_eva_weights

        rank = self.config.options(LoRAOptions).lora_rank
        batches = joined(self._batches(), rank)
        if not batches:
            raise ModelError(
                f"lora_init: eva begins with {rank} components of each layer's inputs (lora_rank), and the training "
                "data has fewer tokens. Expected a lower lora_rank, or another initialization."
            )
        dataloader = _Passes(
            batches,
            f"lora_init: eva found no {rank} stable components of each layer's inputs (lora_rank) in {EVA_PASSES} "
            f"passes over {len(batches)} batches. Expected a lower lora_rank, or another initialization.",
        )
        training = wrapped.training
        initialize_lora_eva_weights(wrapped, dataloader=dataloader, show_progress_bar=False)
        wrapped.train(training)

    def _init_from_rounding(self, wrapped: Any) -> None:
        """LoftQ (arXiv 2310.08659): initializes the adapter with the best approximation of the quantization error."""
        import torch
        from peft.utils.integrations import dequantize_module_weight

        with torch.no_grad():
            for path, layer in self._layers_of(wrapped):
                base, rank = layer.get_base_layer(), layer.r[DEFAULT_ADAPTER]
                if not hasattr(base, "weight") or base.weight.is_floating_point():  # experts stay unquantized
                    continue
                lost = self._stored_weight(path, wrapped).to(base.weight.device).float()
                lost -= dequantize_module_weight(base).float()
                left, values, right = torch.linalg.svd(lost, full_matrices=False)
                root = values[:rank].sqrt()
                layer.lora_B[DEFAULT_ADAPTER].weight.data = (
                    left[:, :rank] * root / layer.scaling[DEFAULT_ADAPTER]
                ).contiguous()
                layer.lora_A[DEFAULT_ADAPTER].weight.data = (root[:, None] * right[:rank]).contiguous()

    def _stored_weight(self, path: str, wrapped: Any) -> Tensor:
        """The unquantized weight `[out, in]` of a layer, from the model's files."""
        source = resolve_model(self.config.model.model_name_or_path, self.config)
        name = f"{path.removeprefix('base_model.model.')}.weight"
        short = name.removeprefix(f"{wrapped.get_base_model().base_model_prefix}.")
        for file in sorted(source.folder.glob("*.safetensors")) if source.kind != "gguf" else ():
            with safe_open(file, framework="pt") as stored:
                for known in {name, short} & set(stored.keys()):
                    tensor: Tensor = stored.get_tensor(known)
                    return tensor
        raise ModelError(
            f"lora_init: loftq reads the unquantized weights, and the files of {source.name} have no {name}. Expected "
            "another model, or lora_init: default."
        )


def joined(examples: Iterable[dict[str, Tensor]], tokens: int) -> list[dict[str, Tensor]]:
    """Join examples to batches of a minimum number of tokens, which principal components need as their samples.

    Args:
        examples: batches of one example, `[1, tokens]`.
        tokens: minimum number of tokens of a batch, without padding.

    Returns:
        Batches `[examples, tokens]`, padded at the end; none if all examples together have fewer tokens.
    """
    from torch.nn.utils.rnn import pad_sequence

    groups: list[list[dict[str, Tensor]]] = [[]]
    for example in examples:
        groups[-1].append(example)
        if sum(one["input_ids"].numel() for one in groups[-1]) >= tokens:
            groups.append([])
    rest = groups.pop()
    if groups:
        groups[-1] += rest
    return [
        {key: pad_sequence([one[key][0] for one in group], batch_first=True) for key in group[0]} for group in groups
    ]


class _Passes:
    """Batches that can be read `EVA_PASSES` times, for a reader that repeats them until convergence.

    Args:
        message: of the error after these passes.
    """

    def __init__(self, batches: list[dict[str, Tensor]], message: str) -> None:
        self._batches = batches
        self._message = message

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _ in range(EVA_PASSES):
            yield from self._batches
        raise ModelError(self._message)


logger = logging.getLogger(__name__)
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
PATTERN = "pattern"


class AdaLoRA(PeftTuner):
    """PEFT's AdaLoRA with its penalty and rank schedule, which PEFT leaves to the training loop."""

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Add a new adapter to the model, or continue the last one in `adapter_name_or_path`, see `PeftTuner.apply`."""
        wrapped = super().apply(model)
        for name, parameter in wrapped.named_parameters():
            if ".ranknum." in name:  # the rank that the adapter is divided by; PEFT does not save it
                parameter.requires_grad_(requires_grad=False)
        self._tuner: Any = wrapped.base_model
        self._pattern: dict[str, Any] | None = None
        return wrapped

    def after_backward(self, scale: float = 1.0) -> None:
        """Add the gradient of the penalty γ · mean of ‖PᵀP - I‖ and ‖QQᵀ - I‖ over all matrices P and Q.

        Frobenius norms, as in PEFT; arXiv 2303.10512, eq. 4, has the sum of their squares.
        """
        import torch

        weight = self.config.options(AdaLoRAOptions).adalora_orthogonality
        pairs = [
            (name, one) for name, one in self._tuner.named_parameters() if ".lora_A." in name or ".lora_B." in name
        ]
        vectors = [(one, ".lora_A." in name) for name, one in pairs if one.requires_grad]
        if not weight or not vectors:
            return
        with torch.enable_grad():
            distances = []
            for one, rows in vectors:
                covariance = one @ one.T if rows else one.T @ one
                distances.append(torch.linalg.norm(covariance - torch.eye(len(covariance)).to(covariance)))
            penalty = weight * scale * torch.stack(distances).mean()
        parameters = [one for one, _ in vectors]
        for one, gradient in zip(parameters, torch.autograd.grad(penalty, parameters), strict=True):
            one.grad = gradient if one.grad is None else one.grad + gradient

    def after_step(self, step: int, total: int) -> None:
        """Measure the importance of each singular value, and set those to 0 that exceed the budget of the step, from 1.

        Importance and budget schedule are PEFT's (arXiv 2303.10512, algorithm 1).
        """
        settings = self._tuner.peft_config[self._tuner.trainable_adapter_name]
        options = self.config.options(AdaLoRAOptions)
        begin, end = (
            int(count * total) if count < 1 else int(count)
            for count in (options.adalora_warmup_steps, options.adalora_final_steps)
        )
        if begin + end >= total:
            if step == 1:
                logger.warning(
                    f"The run has {total} steps, which leaves none for pruning after adalora_warmup_steps and before "
                    "adalora_final_steps. All steps prune."
                )
            begin = end = 0
        settings.total_step, settings.tinit, settings.tfinal = total, begin, end
        if step >= total - end and self._pattern is None and not self._tuner.rankallocator.ipt:
            return  # nothing was measured before the last steps, so there is nothing to choose by
        # Kept here, since PEFT saves smaller matrices once its config has the pattern, which a resume could not load.
        settings.rank_pattern = self._pattern
        self._tuner.update_and_allocate(step)
        self._pattern, settings.rank_pattern = settings.rank_pattern, None

    def state(self) -> dict[str, Tensor]:
        """Moving averages of the allocator, of the shape of their matrix, and which ranks are left, `[rank]`, bool."""
        import torch

        allocator = self._tuner.rankallocator
        averages = {f"{kind}.{name}": tensor for kind in AVERAGES for name, tensor in getattr(allocator, kind).items()}
        pattern = {f"{PATTERN}.{name}": torch.as_tensor(kept) for name, kept in (self._pattern or {}).items()}
        return averages | pattern

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of `state`, so that a resumed run prunes the same ranks; shapes as there."""
        allocator = self._tuner.rankallocator
        of = dict(self._tuner.model.named_parameters())
        for kind in AVERAGES:
            own = {name.partition(".")[2]: tensor for name, tensor in state.items() if name.partition(".")[0] == kind}
            setattr(allocator, kind, {name: tensor.to(of[name].device) for name, tensor in own.items()})
        self._pattern = {
            name.partition(".")[2]: tensor.tolist()
            for name, tensor in state.items()
            if name.partition(".")[0] == PATTERN
        } or None
