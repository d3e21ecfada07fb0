"""Plug-ins: what they look like, and how they are found by entry points."""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from llf_core import __version__
from llf_core.config.option import Section
from llf_core.config.rule import Rule
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.config.run_config import RunConfig

__all__ = [
    "GROUPS",
    "Broken",
    "Method",
    "Plugin",
    "PluginError",
    "Rule",
    "Stage",
    "plugins",
    "uncalled",
]

GROUPS: Mapping[str, str] = {
    "method": "llf.methods",
    "stage": "llf.stages",
}
"""The group of entry points of each kind that LLF calls."""
PREFIX = "llf."


class PluginError(UserError, RuntimeError):
    """Two plug-ins, or a plug-in and a section, name the same key; or a plug-in is not of its kind."""

    exit_code = BAD_CONFIG


class Plugin:
    """Base of all plug-ins. A subclass imports torch and the like only inside its hooks.

    Attributes:
        kind: which of `GROUPS` it belongs to.
        section: the section of a config that its options are shown in.
        name: its name, the value or the key that selects it.
        label: its name in a form; `name` where empty.
        selects: the keys and values that select it.
        Options: its options; their keys are unique over all sections and plug-ins.
        rules: combinations of values that it cannot work with, whether it is selected or not.
    """

    kind: ClassVar[str]
    section: ClassVar[str]
    name: ClassVar[str]
    label: ClassVar[str] = ""
    selects: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[Section]] = Section
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def selected(cls, config: RunConfig) -> bool:
        """Whether the config selects this plug-in."""
        return all(config.get(key) == value for key, value in cls.selects.items())


class Method(Plugin):
    """What of a model is trainable; selected by `finetuning_type: <name>`.

    Attributes:
        frozen_base: whether the model's own weights stay as they are, so that they may be quantized.
        adapter: whether its result is an adapter of PEFT, which a run can go on with (`adapter_name_or_path`) and
            `llf runs loss` can put on; its `apply` then begins with `llf_core.methods.peft_adapter.begin_adapter`.
    """

    kind = "method"
    section = "method"
    frozen_base: ClassVar[bool] = False
    adapter: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls) and "selects" not in vars(cls):
            cls.selects = {"finetuning_type": cls.name}

    @classmethod
    @abstractmethod
    def apply(cls, model: Any, config: RunConfig) -> Any:
        """Sets what is trained.

        Args:
            model: a `PreTrainedModel`, all parameters as they were loaded.
            config: the run's config.

        Returns:
            The model, or the PEFT model around it, with `requires_grad` set on every parameter.
        """


class Stage(Plugin):
    """What is minimised; selected by `stage: <name>`. An attempt makes one object of it.

    Attributes:
        data_kind: what its data sets hold: `answers`, `pairs`, `judged`, `prompts` or `texts`.
        scores: whether the model gets a head that makes one number of an answer.
        generates: whether the model is to write answers; else nothing trains or needs its output head.
        label_names: of a batch, what its loss cannot be computed without.
        differences: what is logged beside the measures: by name, of which measure's mean which is taken away.
        pads: whether it pads its batches whatever the model can take.
        batch_dependent: whether what an example costs depends on the others of its micro-batch.
        generation_keys: keys of the section `generation` by which it draws answers.
        work: what it is made for; None where only its formula is wanted.
    """

    kind = "stage"
    section = "stage"
    data_kind: ClassVar[str] = "answers"
    scores: ClassVar[bool] = False
    generates: ClassVar[bool] = True
    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    differences: ClassVar[Mapping[str, tuple[str, str]]] = {}
    pads: ClassVar[bool] = False
    batch_dependent: bool = False
    generation_keys: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls) and "selects" not in vars(cls):
            cls.selects = {"stage": cls.name}

    def __init__(self, work: Any = None) -> None:
        """Stores the context of the attempt, a `llf_core.stages.base.context.TrainingContext`."""
        self.work = work
        self.measures = Measures()

    def beside(self) -> Sequence[Any]:
        """Models that are trained beside that of the run, and need memory for it as that does."""
        return ()

    def collator(self, **options: Any) -> Any:  # noqa: ARG002
        """What makes batches of examples, given `llf_core.data.Collator`'s arguments; None where that one does."""
        return None

    def examples(self, examples: Any, *, held_out: bool = False) -> Any:  # noqa: ARG002
        """The examples with what the stage adds to each, before batches are made of them."""
        return examples

    @classmethod
    def drawn(cls, config: RunConfig) -> int:  # noqa: ARG003
        """Most tokens of an answer that it draws to each of its examples; 0 where it draws none."""
        return 0

    def trainer(self, settings: Callable[..., Any], callbacks: list[Any]) -> Any:  # noqa: ARG002
        """The trainer of a stage whose steps another library makes; None where `RunTrainer` makes them.

        Args:
            settings: makes the trainer's arguments, given a class of `TrainingArguments` and further values of it.
            callbacks: the run's, which the trainer must call.
        """
        return None

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Any:  # noqa: ARG004
        """How much a batch holds of what the loss is a mean over, an int64 scalar; None where that is tokens."""
        return None

    def batches(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What an optimizer step learns from, given the loader's batches for it; called after the step before."""
        return batches

    @abstractmethod
    def loss_sum(
        self,
        model: Any,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,
        note: Callable[[Any, Any], object] | None = None,
    ) -> Any:
        """Sum of the loss over what `count` counts in one micro-batch.

        Args:
            model: the model under training.
            batch: the collator's tensors.
            label_smoothing: share of the probability spread evenly over the vocabulary, 0 to 1.
            note: called with the loss of each of the batch's examples and the tokens that it is the sum of,
                `[examples]` each, where a stage knows them.

        Returns:
            A float32 scalar with a graph: the sum, not the mean, so that the caller can divide by the count of the
            whole optimizer step on all ranks.
        """

    def evaluated(self, means: Mapping[str, float]) -> None:
        """Is told the means of what it has measured in an evaluation, over all processes; may end the run."""

    def undo(self) -> None:
        """Forgets what `loss_sum` has changed in this object since `keep`: the step is made again in smaller parts."""
        self.measures.undo()

    def keep(self) -> None:
        """Takes for good what `loss_sum` has changed: the gradients of a step, or an evaluation's batch, are whole."""
        self.measures.keep()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on as at the checkpoint whose `state` this is."""

    def save(self, checkpoint: Any) -> None:
        """Writes what is no JSON into a checkpoint's folder."""

    def load(self, checkpoint: Any) -> None:
        """Reads what `save` wrote."""


class Measures:
    """What a stage tells beside its loss: sums and how many they are of, so that any number of parts gives one mean."""

    def __init__(self) -> None:
        self._now: list[tuple[str, Any, Any]] = []
        self._kept: dict[str, list[Any]] = {}

    def add(self, name: str, total: Any, count: Any) -> None:
        """Adds a sum and how many it is of; numbers, or tensors without a graph."""
        self._now.append((name, total, count))

    def undo(self) -> None:
        """Forgets what was added since `keep`: it is to be computed again."""
        self._now.clear()

    def keep(self) -> None:
        """Takes what was added for good."""
        for name, total, count in self._now:
            sums = self._kept.setdefault(name, [0, 0])
            sums[0], sums[1] = sums[0] + total, sums[1] + count
        self._now.clear()

    def take(self) -> dict[str, tuple[float, float]]:
        """The sums and counts since the last call, by name."""
        kept, self._kept = self._kept, {}
        return {name: (float(total), float(count)) for name, (total, count) in kept.items()}


@dataclass(frozen=True)
class Broken:
    """A plug-in that cannot be loaded, or that nothing calls.

    Attributes:
        kind: its kind.
        name: the entry point's name.
        reason: one sentence with package and cause.
    """

    kind: str
    name: str
    reason: str


BASES: Mapping[str, type[Plugin]] = {
    "method": Method,
    "stage": Stage,
}


def plugins(kind: str) -> dict[str, type[Any]]:
    """The classes of a kind by name, ours and those of other installed packages, in the order of their names.

    Args:
        kind: one of `GROUPS`.

    Raises:
        PluginError: two packages register the same name.
    """
    return dict(_loaded(kind)[0])


def broken() -> tuple[Broken, ...]:
    """The installed plug-ins that cannot be loaded, with the reasons."""
    return tuple(one for kind in GROUPS for one in _loaded(kind)[1])


def uncalled() -> tuple[Broken, ...]:
    """The installed plug-ins of kinds that nothing calls: they would do nothing. They are not loaded."""
    found = []
    for group in sorted(_installed().groups):
        if not group.startswith(PREFIX) or group in GROUPS.values():
            continue
        kind = group.removeprefix(PREFIX).removesuffix("s")
        for point in _installed().select(group=group):
            reason = (
                f"{_package(point)} would do nothing, since LLF {__version__} calls no plug-in of this kind. "
                f"Expected plug-ins of the kinds {' and '.join(GROUPS)}: uninstall the package."
            )
            found.append(Broken(kind, point.name, reason))
    return tuple(found)


@functools.cache
def _installed() -> Any:  # `EntryPoints`, in Python 3.11 its like
    """The entry points of all packages, which are read from as many files once."""
    return metadata.entry_points()


@functools.cache
def _loaded(kind: str) -> tuple[Mapping[str, type[Any]], tuple[Broken, ...]]:
    found: dict[str, type[Any]] = {}
    failed = []
    origin: dict[str, metadata.EntryPoint] = {}
    for point in sorted(_installed().select(group=GROUPS[kind]), key=lambda point: point.name):
        try:
            loaded = point.load()
        except Exception as error:  # noqa: BLE001 - a package of somebody else; `validate` reports it
            failed.append(
                Broken(kind, point.name, f"{_package(point)} cannot be loaded: {type(error).__name__}: {error}")
            )
            continue
        base = BASES.get(kind, object)
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            failed.append(Broken(kind, point.name, f"{_package(point)} is not a subclass of {base.__name__}."))
            continue
        name = getattr(loaded, "name", point.name)
        if name in origin and origin[name].value != point.value:
            raise PluginError(
                f"The {kind} {name!r} is registered by {_package(origin[name])} and by {_package(point)}. "
                "Uninstall one of them."
            )
        found[name], origin[name] = loaded, point
    return found, tuple(failed)


def _package(point: metadata.EntryPoint) -> str:
    package = point.dist.name if point.dist else "an unknown package"
    return f"{point.value} of {package}"
