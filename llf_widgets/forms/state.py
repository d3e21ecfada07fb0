"""The state of a form, without widgets: its values, their problems, and changes of them."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config import Fix, Problem, RunConfig, preset
from llf_core.config.build import absolute_values
from llf_core.config.classify_key import known
from llf_core.config.key_aliases import translate
from llf_core.config.read_config import read
from llf_core.data.precheck import FORMAT_KEYS, demo_for_stage
from llf_core.data.template_facts import own_template_of
from llf_core.launch.start import RowsError
from llf_core.model_catalog import find_model
from llf_core.runs.folder import home
from llf_core.runs.uploads import mark_used
from llf_widgets.forms.form_values import DATASET_KEYS, FormProblems
from llf_widgets.forms.places import LAUNCH
from llf_widgets.forms.suggestions import CellRows
from llf_widgets.forms.values import parse_value, plain_value
from llf_widgets.start import split_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "model_name_or_path"
KEPT_KEYS = (MODEL, "dataset", "eval_dataset", "dataset_dir")
"""Keys that a preset without a value for them leaves unchanged: the chosen model and data."""
FormSnapshot = dict[str, Any]
"""Copies of the changeable attributes of `FormState`, by name."""
_CHANGING = (
    "preset_name", "from_preset", "preset_values", "config_values", "notes", "_attached", "_template", "_noted_model"
)  # fmt: skip


class FormState(FormProblems):
    """Values of a form, everything that follows from them, and all that changes them.

    Args:
        source: initial values: a RunConfig, a dict, YAML text or a path; None for the preset.
    """

    def __init__(self, source: Any = None, preset_name: str = "first-minute") -> None:
        super().__init__(preset_name)
        self._template: str | None = None  # the one that was set for the model
        self._noted_model = ""  # the one that the note beside the template is about
        if source is not None:
            self.from_preset = False
            source, rows = split_rows(source.flat() if isinstance(source, RunConfig) else source)
            self._load(source)
            if rows is not None:
                self._load_rows(rows)

    def edit(self, key: str, text: str) -> None:
        """Set a field from typed text; an invalid one stays as it was typed."""
        value = self._parsed(key, text)
        if key == LAUNCH and value != self.value(LAUNCH):  # a target and a number of machines belong to one place
            self.apply({"launch_target": None, "num_nodes": None})
        self.set(key, value)

    def while_typing(self, key: str, text: str) -> RunConfig | None:
        """The config with a field as it is being typed; None if that has errors. The form does not change."""
        if self.config is None:
            return None
        try:
            return self.config.replace(**{key: self._parsed(key, text)})
        except ValueError:  # a `ConfigError` is one
            return None

    def set(self, key: str, value: object) -> None:
        """Set a field by its value; None means "not set"."""
        spec, model = self.specs[key], self.config_values.get(MODEL)
        if value is None and spec.optional and spec.default is not None:
            self.config_values[key] = None
        else:
            self._put(key, value)
        self._invalidate()
        if self.config_values.get(MODEL) != model:
            self._set_template()

    def apply(self, changes: Mapping[str, Any]) -> None:
        """Set several fields at once; None removes a key. Unknown keys are reported, not refused."""
        model = self.config_values.get(MODEL)
        for key, value in changes.items():
            self._put(key, value)
        self._invalidate()
        if self.config_values.get(MODEL) != model and "template" not in changes:
            self._set_template()

    def select_preset(self, preset_name: str) -> None:
        """Set all fields to a preset, except the chosen model and data; built-in data changes with the stage."""
        chosen = preset(preset_name)
        kept = {key: self.config_values[key] for key in KEPT_KEYS if key in self.config_values and key not in chosen}
        shipped = demo_for_stage(plain_value(kept.get("dataset")), str(chosen.get("stage", "sft")))
        kept |= {"dataset": shipped} if shipped else {}
        if MODEL in kept and self._template is not None and self.config_values.get("template") == self._template:
            kept |= {"template": chosen.get("template", self._template)}
        self.preset_values = chosen | kept
        self.preset_name = preset_name
        self.reset()

    def reset(self) -> None:
        """Reset to the preset."""
        self.from_preset = True
        self.config_values = dict(self.preset_values)
        self.notes = ()
        self._invalidate()

    def replace_values(self, values: Mapping[str, object]) -> None:
        """Replace all values."""
        self.config_values = dict(values)
        self._invalidate()

    def snapshot(self) -> FormSnapshot:
        """Copy what changes with the form, for `return_to`."""
        return {name: copy(getattr(self, name)) for name in _CHANGING}

    def return_to(self, snapshot: FormSnapshot) -> None:
        """Undo all changes since a snapshot; a hub's answers since then stay."""
        for name, value in snapshot.items():
            setattr(self, name, copy(value))
        self._invalidate()

    def load_text(self, text: str, *, defaults: bool = False, folder: Path | None = None) -> None:
        """Replace the values with a YAML text; changes are still counted against the preset.

        Args:
            defaults: whether to drop default values in it, as written by `yaml(defaults=True)`.
            folder: folder at which relative paths of the text start, if it comes from a file.
        """
        self._load(text if "\n" in text else f"{text}\n", folder)
        if defaults:
            self.config_values = {
                key: value for key, value in self.config_values.items() if not self._is_left_out(key, value)
            }
        self._invalidate()

    def set_dataset(self, key: str, name: str) -> None:
        """Set the data set of a field, and drop a column mapping that does not fit it."""
        self.set(key, name)
        if any(column in self.config_values for column in FORMAT_KEYS) and any(
            one.key == key and one.severity == "error" for one in self.data_problems
        ):
            self.apply(dict.fromkeys(FORMAT_KEYS))

    def keep_uploads(self) -> None:
        """Mark uploaded data in the form as used, so that `llf runs clean` keeps it."""
        if self.cell_rows is not None:
            with suppress(OSError):  # the run gets the rows themselves
                self.cell_rows.ensure_saved()
        for key in DATASET_KEYS:
            value = self.config_values.get(key)
            names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
            mark_used(home(), [str(one) for one in names])

    def _set_template(self) -> None:
        """Set the chat template of a chosen model, with a note that can undo it.

        A template that somebody chose stays. One that was set for the model before is replaced, or removed.
        """
        if self.config_values.get("template") not in (None, self._template):  # it may be a list that was pasted
            return
        self._noted_model = self._model()
        self._template, note = _template_of_model(self._noted_model)
        self.apply({"template": self._template})
        self._attached.pop("template", None)
        if note is not None:
            self.attach_problem("template", note)

    def _load_rows(self, rows: object) -> None:
        try:
            self.cell_rows = CellRows.save(rows)
        except (OSError, RowsError) as error:
            reason = str(error) if isinstance(error, RowsError) else f"The rows of the cell cannot be saved: {error}."
            self.attach_problem("dataset", Problem("invalid", "dataset", None, reason))
            return
        self.config_values["dataset"] = self.cell_rows.path
        self._invalidate()

    def _load(self, source: object, folder: Path | None = None) -> None:
        source_config = read(source, base=folder)
        if (source_config.file or folder is not None) and source_config.base != Path.cwd():
            # the form's own text has no folder: its relative paths start at the working directory
            source_config.file = True
            source_config.values = absolute_values(source_config)
        older = known().translated
        named = {older.get(key, key) for key in source_config.values} | set(source_config.values)
        translate(source_config)
        named |= source_config.spelled_out
        errors = [problem.message for problem in source_config.problems if problem.severity == "error"]
        if errors:
            raise ValueError(" ".join(errors))
        # what the config adds to these values follows from them, and would stay where they change
        self.config_values = {key: value for key, value in source_config.values.items() if key in named}
        self.notes = tuple(source_config.problems)
        self._invalidate()

    def _model(self) -> str:
        return str(self.config_values.get(MODEL) or "")

    def _invalidate(self) -> None:
        super()._invalidate()
        if self.config_values.get("template") != self._template:  # from here on it is one that somebody chose
            self._template = None
        if self._model() != self._noted_model:
            self._attached.pop("template", None)

    def _parsed(self, key: str, text: str) -> object:
        """The value of a typed text, without zero bytes, which no config holds."""
        if self.cell_rows is not None and key in DATASET_KEYS:
            text = self.cell_rows.from_display(text)
        return parse_value(self.specs[key], text.replace("\0", ""))

    def _put(self, key: str, value: object) -> None:
        if value is None or self._is_left_out(key, value):
            self.config_values.pop(key, None)
        else:
            self.config_values[key] = value


def _template_of_model(name: str) -> tuple[str | None, Problem | None]:
    """The template of a model of the catalog (None for the tokenizer's own), with a note whose button undoes it.

    None is set where LLaMA-Factory's template is known to differ from the model's own; the button then sets it.
    """
    model = find_model(name)
    if model is None:
        return None, None
    own = own_template_of(model.id) if model.template else None
    template = model.template or None if own is None else None
    fixes: tuple[Fix, ...] = ()
    if own is not None:
        said = (
            f"The tokenizer's own template is used ({own.family}): `{model.template}`, LLaMA-Factory's template of "
            f"{model.id}, writes conversations otherwise."
        )
        fixes = (Fix(f"Use {model.template}", {"template": model.template}),)
    elif template is not None:
        said = f"The template of {model.id}. It was set when the model was chosen."
        fixes = (Fix("Use the tokenizer's own", {"template": None}),)
    elif model.tuning == "chat":
        said = f"No named template is known for {model.id}: its tokenizer's own is used."
    else:
        return None, None
    return template, Problem("violation", "template", template, said, fixes, "note", keys=("template",))
