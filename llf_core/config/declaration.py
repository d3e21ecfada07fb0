"""Declarations of plug-ins: name, options, rules and traits, without heavy imports."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from llf_core.config.option import Section, split_names
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.rule import Problem, Rule
    from llf_core.config.values import ConfigValues

ImplementationT = TypeVar("ImplementationT")
DataKind = Literal["answers", "pairs", "unpaired_preferences", "prompts", "texts"]
LossKind = Literal["likelihood", "preference", "reward"]
NOT_ON_PARAMETERS = ("lora_dropout", "use_dora")
"""Options that PEFT cannot apply to an adapter on a parameter."""
RANDOM = (True, "gaussian")
"""Values of `init_lora_weights` that it can apply to one."""


class PluginError(UserError, RuntimeError):
    """Two plug-ins, or a plug-in and a section, define the same key; or a plug-in is not of its kind."""

    exit_code = BAD_CONFIG


@dataclass(frozen=True, kw_only=True, eq=False)
class Declaration:
    """A plug-in, as forms, rules and the command line see it. Its module imports no torch, transformers or datasets.

    Attributes:
        name: the value that selects it, such as `lora`.
        summary: one line for the list in the form: what it changes, and when to take it.
        paper: such as `arXiv 2106.09685`; may be empty.
        implementation: `package.module:Class` of the class that does the work; imported when a run needs it.
        options: their keys are unique over all sections and plug-ins.
        rules: combinations of values that do not work, checked whether it is selected or not.
        kind: of the class: the kind of plug-in, such as `method`.
        section: of the class: the section of a config in which its options are shown.
        key: of the class: the key whose value selects it, such as `finetuning_type`; empty for a modifier.
    """

    kind: ClassVar[str]
    section: ClassVar[str]
    key: ClassVar[str]

    name: str
    label: str
    summary: str = ""
    paper: str = ""
    implementation: str = ""
    options: type[Section] = Section
    rules: tuple[Rule, ...] = ()

    @property
    def line(self) -> str:
        """Label, summary and paper, for a list to choose from; without a summary the label alone."""
        paper = f" ({self.paper})" if self.paper else ""
        return f"{self.label}: {self.summary}{paper}" if self.summary else self.label

    @property
    def selector(self) -> str:
        """The key whose value selects the plug-in, such as `finetuning_type`."""
        return self.key

    def selected_by(self, value: object) -> bool:
        """Whether a value of `selector` selects the plug-in."""
        return value == self.name

    def is_selected(self, config: ConfigValues) -> bool:
        """Whether a config selects the plug-in."""
        return self.is_selected_in(config.get)

    def is_selected_in(self, value_of: Callable[[str], object]) -> bool:
        """Whether the values of a form select the plug-in."""
        return self.selected_by(value_of(self.selector))

    def load(self, base: type[ImplementationT]) -> type[ImplementationT]:
        """Import the class that `implementation` names, a subclass of `base` (the abstract class of the kind)."""
        module, _, name = self.implementation.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a package of somebody else may raise anything, or call `sys.exit`
            raise PluginError(
                f"The {self.kind} {self.name} names {self.implementation or 'no implementation'}, which cannot be "
                f"imported: {type(error).__name__}: {error}. Expected package.module:Class."
            ) from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(
                f"The {self.kind} {self.name} names {self.implementation}, which is not a subclass of "
                f"{base.__module__}.{base.__name__}."
            )
        return found


@dataclass(frozen=True)
class Tuner:
    """An adapter of PEFT that a config asks for.

    Attributes:
        peft_type: PEFT's name, such as `OFT`.
        options: fields of PEFT's config class; the others keep PEFT's defaults.
        target_key: the key that names the modules it is put on, for messages; empty if it is put on no module.
        targets: names of these modules, or `all` for every linear layer; None for PEFT's own choice.
        any_module: whether the targets may be other modules than linear layers and embeddings.
    """

    peft_type: str
    options: Mapping[str, object] = field(default_factory=dict)
    target_key: str = ""
    targets: tuple[str, ...] | None = None
    any_module: bool = False

    @property
    def on_parameters(self) -> bool:
        """Whether PEFT can put the adapter on a parameter, such as one that holds all experts of a layer."""
        random = self.options.get("init_lora_weights", True) in RANDOM
        return random and not any(self.options.get(name) for name in NOT_ON_PARAMETERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodDeclaration(Declaration):
    """A fine-tuning method; implemented by a `llf_core.methods.method.Method`.

    Attributes:
        frozen_base: whether the model's own weights stay as they are, so that they may be quantized.
        adapter: whether the result is an adapter of PEFT, which a run can continue (`adapter_name_or_path`) and
            `llf runs loss` can load.
        tuner: the adapter of PEFT that a config asks for, if `llf_core.methods.peft_tuner.PeftTuner` implements the
            method.
        prompts: whether a config trains vectors that are put before each example instead of changing layers.
        trains_cache: whether a config trains keys and values in attention's cache, which gradient checkpointing drops.
        check_shapes: why the options do not fit a model, from the config and the shape of each weight by name; None if
            they do. Checked before the start where the shapes are known, and again when the model is loaded.
        rank_key: the option that holds the rank of its matrices, which less memory can lower; None without one.
        selects_blocks: whether it trains some transformer blocks whole (`freeze_trainable_layers`).
        trained_parameters: number of trained parameters, from the config and the shape of each weight by name; None
            where that needs the model.
    """

    kind: ClassVar[str] = "method"
    section: ClassVar[str] = "method"
    key: ClassVar[str] = "finetuning_type"

    frozen_base: bool = False
    adapter: bool = False
    tuner: Callable[[ConfigValues], Tuner] | None = None
    prompts: Callable[[ConfigValues], bool] = lambda _: False
    trains_cache: Callable[[ConfigValues], bool] = lambda _: False
    check_shapes: Callable[[ConfigValues, Mapping[str, tuple[int, ...]]], Problem | None] | None = None
    rank_key: str | None = None
    selects_blocks: bool = False
    trained_parameters: Callable[[ConfigValues, Mapping[str, tuple[int, ...]]], int | None] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ModifierDeclaration(Declaration):
    """A change to the loaded model beside its method; implemented by a `llf_core.modifiers.modifier.Modifier`.

    Attributes:
        switch: the key, usually one of its options, that selects it where its value is neither empty, 0 nor false.
        flattened: whether it works with flattened batches alone, so that a model that needs padding is refused.
        continued: options that differ in a run that starts from its result, so that the model is not changed twice.
        reads_weights: whether it reads weights or runs the model, so that each process must load all weights before
            they are sharded.
    """

    kind: ClassVar[str] = "modifier"
    section: ClassVar[str] = "training"
    key: ClassVar[str] = ""

    switch: str
    flattened: bool = False
    continued: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    reads_weights: bool = True

    @property
    def selector(self) -> str:
        """The key `switch`."""
        return self.switch

    def selected_by(self, value: object) -> bool:
        """Whether a value of its switch is neither empty, 0 nor false."""
        return bool(value)


@dataclass(frozen=True)
class OptimizerMemory:
    """Bytes of an optimizer's state, and number of gradient values that exist at a time."""

    state_bytes: float
    gradients: int


@dataclass(frozen=True, kw_only=True, eq=False)
class OptimizerDeclaration(Declaration):
    """An optimizer; implemented by a `llf_core.optimizers.optimizer.Optimizer`, or by transformers under its name.

    Attributes:
        switch: a flag among its options that selects it too, such as `use_galore`; `optim` then names the optimizer
            that it is built on. Empty: only `optim` selects it.
        bases: values of `optim` that can stand beside its switch; the first is meant where `optim` names it itself.
        state_bytes: bytes of state for each trained parameter, for the memory forecast; Adam keeps 8.
        memory: replaces `state_bytes`: from the config, the shape of each trained parameter by name and the bytes of
            one of their values.
        layerwise: whether a config has it update each parameter in the backward pass and free its gradient at once.
        keeps_masters: whether it keeps float32 copies of what it updates, so that trained weights stay in the dtype of
            the model.
        one_process: whether a config has it update parameters in ways that several processes do not agree on.
        check_shapes: why it cannot train weights, from the config and the shape of each weight by name; None if it can.
            The shapes are those of the model's files before a run starts, then those of the trained parameters.
        packages: packages it imports beside torch and transformers, as pip calls them.
    """

    kind: ClassVar[str] = "optimizer"
    section: ClassVar[str] = "optimizer"
    key: ClassVar[str] = "optim"

    switch: str = ""
    bases: tuple[str, ...] = ()
    state_bytes: float = 8.0
    memory: Callable[[ConfigValues, Mapping[str, tuple[int, ...]], int], OptimizerMemory] | None = None
    layerwise: Callable[[ConfigValues], bool] = lambda _: False
    trains_adapters: bool = True
    keeps_masters: bool = False
    one_process: Callable[[ConfigValues], bool] = lambda _: False
    check_shapes: Callable[[ConfigValues, Mapping[str, tuple[int, ...]]], Problem | None] | None = None
    packages: tuple[str, ...] = ()

    def is_switched_on(self, config: ConfigValues) -> bool:
        """Whether its switch selects it, whatever `optim` names, as LLaMA-Factory's `use_galore` does."""
        return bool(self.switch) and bool(config.get(self.switch))

    def is_selected_in(self, value_of: Callable[[str], object]) -> bool:
        """Whether its switch or `optim` selects it in the values of a form."""
        return (bool(self.switch) and bool(value_of(self.switch))) or super().is_selected_in(value_of)

    def memory_for(
        self, config: ConfigValues, shapes: Mapping[str, tuple[int, ...]], width: int = 4
    ) -> OptimizerMemory:
        """Estimate the memory of its state and of the gradients.

        Args:
            shapes: of each trained parameter, by name.
            width: bytes of one of their values.
        """
        if self.memory is not None:
            return self.memory(config, shapes, width)
        sizes = [math.prod(shape) for shape in shapes.values()]
        gradients = max(sizes, default=0) if self.layerwise(config) else sum(sizes)
        return OptimizerMemory(sum(sizes) * self.state_bytes, gradients)


def _batches_of_epoch(config: ConfigValues, rows: float) -> int:
    """Optimizer steps of an epoch, as transformers' `Trainer` counts them: batches that are not full count too."""
    training = config.training
    batch = training.per_device_train_batch_size * config.launch.ranks
    return math.ceil(math.ceil(rows / batch) / training.gradient_accumulation_steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class StageDeclaration(Declaration):
    """A training objective; implemented by a `LossStage` or a `TrainerStage` of `llf_core.stages.base.stage`.

    Attributes:
        loss_kind: for the doctor: `likelihood` falls and stays above 0, `preference` falls and may reach 0, `reward`
            says nothing, while the reward does.
        likelihood_metric: of a `likelihood` loss, the metric that is one in a config: `loss`, unless it is weighted.
        evaluation_metrics: metrics by which checkpoints can be ranked, beside the loss: whether a higher value is
            better, by name.
        token_accuracy: whether an evaluation can count the most likely tokens (`compute_accuracy`).
        perplexity: whether an evaluation has the perplexity of its loss, as LLaMA-Factory's does for `pt`.
        has_reward_head: whether the model gets a head that computes one number for each completion.
        generates: whether the trained model is to generate text; else its output head is neither trained nor needed.
        pads: whether it pads its batches whatever the model allows.
        compares: whether it compares log-probabilities with those of a reference model (`pref_beta`, …).
        uses_reference: whether a config's loss needs the log-probabilities of a reference model.
        holds_reference: whether a run of a config has a reference model, which may need memory of its own.
        separates_models: whether reference, value function and reward model are models of their own in a config, also
            where they could share the trained one.
        has_reference: whether another reference model than the initial one can be named (`ref_model`, …).
        uses_rewards: whether reward functions can score its completions (`reward_functions`, …).
        scored_by_functions: of a stage that `uses_rewards`, whether they do in a config.
        samples_groups: whether it samples a group of completions for each prompt (`num_generations`, …).
        generation_keys: keys of the section `generation` by which it samples completions.
        other_names: its own names of options of other stages, by their name there.
        second_model: the key of a model that is loaded beside the trained one; None where the config names none.
        second_is_adapter: whether that is an adapter for the trained model's base in a config.
        completion_limit: the key that limits the tokens of a completion it samples; empty where it samples none.
        completion_tokens: maximum tokens of a sampled completion, of a config and the tokens of its prompt (0 for the
            most of all); 0 where it samples none.
        uses_of_completion: number of optimizer steps that learn from a completion it samples.
        epoch_steps: optimizer steps of an epoch, of a config and its number of rows (examples, prompts, or packed
            rows).
    """

    kind: ClassVar[str] = "stage"
    section: ClassVar[str] = "stage"
    key: ClassVar[str] = "stage"

    data_kind: DataKind = "answers"
    loss_kind: LossKind = "likelihood"
    likelihood_metric: Callable[[Mapping[str, object]], str] = lambda _: "loss"
    evaluation_metrics: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    token_accuracy: bool = False
    perplexity: bool = False
    has_reward_head: bool = False
    trains_value_function: bool = False
    generates: bool = True
    pads: bool = False
    compares: bool = False
    uses_reference: Callable[[ConfigValues], bool] = lambda _: False
    holds_reference: Callable[[ConfigValues], bool] = lambda _: False
    separates_models: Callable[[ConfigValues], bool] = lambda _: False
    has_reference: bool = False
    uses_rewards: bool = False
    scored_by_functions: Callable[[ConfigValues], bool] = lambda _: True
    samples_groups: bool = False
    generation_keys: tuple[str, ...] = ()
    other_names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    second_model: Callable[[ConfigValues], str | None] = lambda _: None
    second_is_adapter: Callable[[ConfigValues], bool] = lambda _: False
    completion_limit: str = ""
    completion_tokens: Callable[[ConfigValues, int], int] = lambda _config, _prompt: 0
    uses_of_completion: Callable[[ConfigValues], int] = lambda _: 1
    epoch_steps: Callable[[ConfigValues, float], int] = _batches_of_epoch


@dataclass(frozen=True, kw_only=True, eq=False)
class ChatEngineDeclaration(Declaration):
    """Holds a model and replies; implemented by a `llf_core.chat.chat_engine.ChatEngine`.

    Attributes:
        package: the package that it needs; empty if it needs none.
    """

    kind: ClassVar[str] = "chat_engine"
    section: ClassVar[str] = "chat"
    key: ClassVar[str] = "infer_backend"

    package: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricDeclaration(Declaration):
    """Scores generated answers; implemented by a `llf_core.metrics.base_metric.Metric`.

    Attributes:
        unit: shown behind a value. `%` is for values from 0 to 1, shown times 100, with differences in points.
        needs_reference: whether it compares an answer with the reference; examples without one are not scored.
        group: another name in `metrics`, which selects all metrics of the group; empty for none.
    """

    kind: ClassVar[str] = "metric"
    section: ClassVar[str] = "evaluation"
    key: ClassVar[str] = "metrics"

    unit: str = ""
    higher_is_better: bool = True
    needs_reference: bool = True
    group: str = ""

    def selected_by(self, value: object) -> bool:
        """Whether `metrics` names it or its group, as `rouge` for all its parts."""
        names = split_names(value)
        return isinstance(names, tuple) and any(one in names for one in (self.name, self.group) if one)


@dataclass(frozen=True, kw_only=True, eq=False)
class FormatDeclaration(Declaration):
    """A layout of a data set's records; implemented by a `llf_core.data.formats.DatasetFormat`.

    Attributes:
        layout: `instruction` (columns for prompt and response), `turns` (a list of messages) or `text`.
        columns: by role in the words of `dataset_info.json`, the name of the column unless the set names another.
        required: roles that a record cannot do without.
        ranked: by role, the columns of a preference pair.
        tags: by tag of `dataset_info.json`, its value unless the set names another.
    """

    kind: ClassVar[str] = "format"
    section: ClassVar[str] = "data"
    key: ClassVar[str] = "dataset_format"

    layout: Literal["instruction", "turns", "text"]
    columns: Mapping[str, str]
    required: tuple[str, ...]
    ranked: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
