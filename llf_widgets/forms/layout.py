"""Which field stands in which section of the form."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config import FieldSpec

SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("model",),
    "Data": ("data",),
    "Method": ("stage", "method"),
    "Training": ("training", "optimizer", "generation", "launch"),
}
"""A section of the form, and the sections of a config that are shown in it."""

GROUPS = {"optimizer": "Optimizer", "generation": "Generation", "launch": "Launch"}
"""Headings among the fields that are not basic."""


def arrange(specs: Sequence[FieldSpec]) -> dict[str, list[FieldSpec]]:
    """The fields of each section: basic ones first, folders after what is chosen or counted.

    Raises:
        ValueError: a section of the config that no section of the form shows.
    """
    home = {section: title for title, sections in SECTIONS.items() for section in sections}
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
