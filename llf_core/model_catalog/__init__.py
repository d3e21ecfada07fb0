"""The catalog of known models, and a search in it. Imports only the standard library: `llf models` answers at once."""

from llf_core.model_catalog.models import (
    CatalogModel,
    License,
    find_model,
    known_models,
    license_conditions,
    search_models,
    unmatched_words,
)

__all__ = [
    "CatalogModel",
    "License",
    "find_model",
    "known_models",
    "license_conditions",
    "search_models",
    "unmatched_words",
]
