from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import USED_BY_OTHERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import FieldSpec

SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("model",),
    "Data": ("data",),
    "Method": ("stage", "method"),
    "Training": ("training", "optimizer", "evaluation", "generation"),
    "Where": ("launch",),
}
"""The config sections in each section of the form."""

GROUPS = {"optimizer": "Optimizer", "evaluation": "Evaluation", "generation": "Generation"}
"""Headings among the advanced fields."""


def assign_sections(specs: Sequence[FieldSpec]) -> dict[str, list[FieldSpec]]:
    """Sort fields into sections of the form: basic ones first, folders after choices and numbers."""
    home = {section: title for title, sections in SECTIONS.items() for section in sections}
    specs = [spec for spec in specs if spec.section not in USED_BY_OTHERS]  # a form starts runs, and these concern none
    unplaced = {spec.section for spec in specs} - set(home)
    if unplaced:
        raise ValueError(f"The form layout does not contain the section {', '.join(sorted(unplaced))}.")
    found: dict[str, list[FieldSpec]] = {title: [] for title in SECTIONS}
    for spec in specs:
        found[home[spec.section]].append(spec)
    for title, sections in SECTIONS.items():
        found[title].sort(
            key=lambda spec: (
                spec.level != "basic",
                spec.level == "basic" and spec.path == "folder",
                sections.index(spec.section),
            )
        )
    return found
