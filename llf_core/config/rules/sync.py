"""Rules about the copy of a run for another machine."""

from __future__ import annotations

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.sync_place import place_problem

SYNC = (
    Rule(
        ("sync_to",),
        lambda c: bool(place_problem(c.launch.sync_to or "")),
        lambda c: place_problem(c.launch.sync_to or ""),
        (Fix("Copy nothing", {"sync_to": None}),),
    ),
)
