"""Reads the curves of a run as they come and says what is wrong, and what to do about it. Imports no torch."""

from llf_core.doctor.doctor import Doctor
from llf_core.doctor.finding import Finding

__all__ = ["Doctor", "Finding"]
