"""LoRA: low-rank matrices beside the frozen weights (arXiv 2106.09685).

With rsLoRA (arXiv 2312.03732) and DoRA (arXiv 2402.09353).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llf_core.config.option import Names, Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import Method
from llf_core.config.rule import Rule
from llf_core.methods.lora_targets import adapter_targets, saved_modules, senses
from llf_core.methods.peft_adapter import begin_adapter
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import RunConfig


class LoRAOptions(Section):
    """The shape of the adapter."""

    lora_rank: int = option(
        8,
        label="LoRA rank",
        help="Rank r of the low-rank matrices. Higher ranks can learn more and use more memory. Typical: 8 to 64.",
        minimum=1,
        maximum=65_536,
        level="basic",
        source="LLaMA-Factory",
    )
    lora_alpha: float | None = option(
        None,
        unset="auto: {lora_rank*2}",
        label="LoRA alpha",
        help="Scaling: the adapter's output is multiplied by alpha / r. Default: twice the rank.",
        above=0,
        level="basic",
        source="LLaMA-Factory",
    )
    lora_dropout: float = option(
        0.0,
        label="LoRA dropout",
        help="Dropout probability on the adapter's inputs. Values above 0 slow down training on a CPU.",
        minimum=0,
        below=1,
        source="LLaMA-Factory",
    )
    lora_target: Names = option(
        ("all",),
        label="Target modules",
        help=(
            "Names of the linear layers and experts that get an adapter, or `all` for every one except the output head."
        ),
        level="basic",
        source="LLaMA-Factory",
    )
    additional_target: Names | None = option(
        None,
        unset="none",
        label="Modules trained in full",
        help="Names of further modules to train in full and save with the adapter, such as `embed_tokens`.",
        source="LLaMA-Factory",
    )
    use_rslora: bool = option(
        False,
        label="Rank-stabilised LoRA",
        help="Scales by alpha / √r, so that high ranks train as fast as low ones (rsLoRA).",
        source="LLaMA-Factory",
    )
    use_dora: bool = option(
        False,
        label="DoRA",
        help="Also trains the magnitude of each weight column (DoRA). Slower; often better at low ranks.",
        source="LLaMA-Factory",
    )
    create_new_adapter: bool = option(
        False,
        label="Start a new adapter",
        help="Merges every adapter of `adapter_name_or_path` into the model and trains a new one.",
        source="LLaMA-Factory",
    )


def _wants_several(config: RunConfig) -> bool:
    adapters = config.get("adapter_name_or_path") or ()
    return bool(config.get("quantization_bit")) and (
        len(adapters) > 1 or bool(adapters and config.get("create_new_adapter"))
    )


class LoRA(Method):
    """Low-rank matrices are trained beside the frozen weights."""

    name: ClassVar[str] = "lora"
    label: ClassVar[str] = "lora (an adapter)"
    frozen_base: ClassVar[bool] = True
    adapter: ClassVar[bool] = True
    Options: ClassVar[type[Section]] = LoRAOptions
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("adapter_name_or_path", "finetuning_type"),
            lambda config: bool(config.get("adapter_name_or_path")) and not config.plugin("method").adapter,
            lambda config: (
                f"finetuning_type {config.get('finetuning_type')} cannot go on with an adapter: it trains "
                "the model's own weights."
            ),
            (
                Fix("Train with LoRA", {"finetuning_type": "lora"}),
                Fix("Leave the adapter out", {"adapter_name_or_path": None}),
            ),
        ),
        Rule(
            ("adapter_name_or_path", "quantization_bit", "create_new_adapter"),
            _wants_several,
            "An adapter cannot be merged into a quantized model without loss: with quantization_bit only one adapter "
            "can be given, and training goes on with it.",
            (Fix("Train unquantized", {"quantization_bit": None}),),
        ),
        Rule(
            ("lora_dropout", "use_cpu"),
            lambda config: (
                config.get("finetuning_type") == "lora" and config.get("lora_dropout") > 0 and config.get("use_cpu")
            ),
            "Dropout above 0 makes a step on a CPU up to 1.4 times as long.",
            (Fix("Set to 0", {"lora_dropout": 0}),),
            severity="warning",
        ),
        Rule(
            ("create_new_adapter", "adapter_name_or_path"),
            lambda config: bool(config.get("create_new_adapter")) and not config.get("adapter_name_or_path"),
            "create_new_adapter says what happens to adapter_name_or_path, which is not set: a new adapter is "
            "trained anyway.",
            (Fix("Leave it out", {"create_new_adapter": None}),),
            severity="note",
        ),
    )

    @classmethod
    def apply(cls, model: Any, config: RunConfig) -> Any:
        """Wraps the model with a new adapter, or goes on with the last of `adapter_name_or_path`.

        Returns:
            A `PeftModel` in which only the adapter and `additional_target` are trainable, in float32 unless
            `pure_bf16`. `llf_notes` on its base are sentences on what `lora_target: all` leaves out.

        Raises:
            ModelError: a module that the model does not have, or an adapter that does not fit.
        """
        _keep_scale(model)
        return begin_adapter(model, config, lambda merged: _wrap(merged, config))


def _wrap(model: Any, config: RunConfig) -> Any:
    """A new adapter around a model."""
    from peft import LoraConfig, TaskType, get_peft_model

    options: Any = config.options(LoRA.name)
    plain = not options.lora_dropout and not options.use_dora
    targets = adapter_targets(model, options.lora_target, plain=plain)
    model.llf_notes = targets.notes
    whole = _whole_modules(model, options.additional_target or ())
    if not targets.parameters and not _left_for_adapters(model, targets.modules, whole):
        raise ModelError(
            f"additional_target trains {', '.join(whole)} whole, which leaves no module of lora_target "
            f"({', '.join(options.lora_target)}) for the adapter. Take them out of additional_target, or set "
            "finetuning_type: full."
        )
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=options.lora_rank,
            lora_alpha=options.lora_alpha or 2 * options.lora_rank,
            lora_dropout=options.lora_dropout,
            target_modules=targets.modules,
            target_parameters=targets.parameters or None,
            exclude_modules=senses(model) or None,
            modules_to_save=whole or None,
            use_rslora=options.use_rslora,
            use_dora=options.use_dora,
            ensure_weight_tying=_trains_tied_weights(model, options.additional_target or ()),
        ),
    )


def _left_for_adapters(model: Any, targets: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether one of the targets is not trained whole, by itself or with the module that holds it."""
    paths = [path for path, _ in model.named_modules()]
    kept = [path for path in paths if _ends(path, whole)]
    return any(
        _ends(path, targets) and not any(path == one or path.startswith(f"{one}.") for one in kept) for path in paths
    )


def _ends(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _keep_scale(model: Any) -> None:
    """Has RWKV evaluate with the weights that it trains with.

    It divides weights of its deeper layers while it evaluates, against overflows in float16. What an adapter adds to
    them, and weights in 4 bits, it does not divide.
    """
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0


def _whole_modules(model: Any, asked: Sequence[str]) -> list[str]:
    """What is trained whole beside the adapter: what was asked for, and the head of a reward model."""
    from llf_core.models.reward_head import SCORE

    own = [SCORE] if hasattr(model, SCORE) and SCORE not in asked else []
    return saved_modules(model, asked) + own


def _trains_tied_weights(model: Any, modules: Sequence[str]) -> bool:
    """Whether embedding or head are trained whole and share one matrix, which must then stay one."""
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    pair = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    names = {name for name, module in model.named_modules() if any(module is one for one in pair)}
    return tied and any(name == asked or name.endswith(f".{asked}") for name in names for asked in modules)
