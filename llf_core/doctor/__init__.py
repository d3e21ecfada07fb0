"""Detects problems in the curves of a live run, and suggests fixes. Imports no torch."""

from llf_core.doctor.doctor import Doctor
from llf_core.doctor.rule import Finding

__all__ = ["Doctor", "Finding"]
