"""What a run will need, before it is started and without loading its model."""

from llf_core.estimate.disk import disk
from llf_core.estimate.weights import shapes, trained

__all__ = ["disk", "shapes", "trained"]
