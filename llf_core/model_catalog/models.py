"""The models of the catalog with their licenses, and a search in it."""

from __future__ import annotations

import csv
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MODELS_FILE = Path(__file__).with_name("models.csv")


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A row of `models.csv`, whose head has the source of each column. Empty or None: not known.

    Attributes:
        id: hub id, `owner/name`.
        names: LLaMA-Factory's names of it.
        type: architecture, `model_type` of transformers.
        parameters: in billions.
        active: parameters that compute one token, in billions, of a mixture of experts; None for other models.
        context: maximum number of tokens.
        license: SPDX id, or a name in `licenses.toml`.
        gated: whether its owner gives access on the hub after conditions are accepted; False if that is not known.
        modality: what it reads, as in `text+image`.
        tuning: `chat` or `base`.
        template: named chat template for its conversations. Empty: the tokenizer's own.
        dtype: of the stored weights.
        released: ISO date, to the day or the month.
    """

    id: str
    names: tuple[str, ...]
    family: str
    modelscope: str
    type: str
    parameters: float | None
    active: float | None
    context: int | None
    license: str
    gated: bool
    modality: str
    tuning: str
    template: str
    dtype: str
    released: str

    @property
    def size(self) -> str:
        """Number of parameters as in names of models: `7B`, `30B-A3B` or `135M`; empty if not known."""
        total = "" if self.parameters is None else _billions(self.parameters)
        return total if self.active is None else f"{total}-A{_billions(self.active)}".removeprefix("-")

    def json(self) -> dict[str, Any]:
        """Convert to JSON data; what is not known is null."""
        told = {name: getattr(self, name) for name in self.__slots__}
        told |= {"names": list(self.names), "gated": True if self.gated else None}
        return {name: None if value == "" else value for name, value in told.items()}


@cache
def known_models() -> tuple[CatalogModel, ...]:
    """All known models, sorted by id in any case."""
    with MODELS_FILE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(_model(row) for row in rows)


@cache
def _by_id() -> dict[str, CatalogModel]:
    return {one.id.lower(): one for one in known_models()}


def find_model(name: str) -> CatalogModel | None:
    """Find a model by its hub id, in upper or lower case as on the hub; None if it is not in the catalog."""
    return _by_id().get(name.lower())


def _model(row: dict[str, str]) -> CatalogModel:
    return CatalogModel(
        id=row["id"],
        names=tuple(row["names"].split("|")) if row["names"] else (),
        family=row["family"],
        modelscope=row["modelscope"],
        type=row["type"],
        parameters=float(row["parameters"]) if row["parameters"] else None,
        active=float(row["active"]) if row["active"] else None,
        context=int(row["context"]) if row["context"] else None,
        license=row["license"],
        gated=row["gated"] == "yes",
        modality=row["modality"],
        tuning=row["tuning"],
        template=row["template"],
        dtype=row["dtype"],
        released=row["released"],
    )


def _billions(number: float) -> str:
    if number >= 1000:  # noqa: PLR2004 - a trillion
        return f"{number / 1000:g}T"
    return f"{number:g}B" if number >= 1 else f"{1000 * number:g}M"


LICENSES_FILE = Path(__file__).with_name("licenses.toml")


@dataclass(frozen=True, slots=True)
class License:
    """A license with conditions."""

    title: str
    conditions: str
    url: str


@cache
def license_conditions() -> dict[str, License]:
    """Licenses with conditions beyond keeping a notice, by name, from `licenses.toml`."""
    with LICENSES_FILE.open("rb") as file:
        return {name: License(**entry) for name, entry in tomllib.load(file).items()}


_PART = r"(?:(?<![a-z0-9.])|(?<=[a-z]\.)|(?<=[a-z]{2})(?=[0-9]))"
"""Where a part of a name begins: after a sign, or where digits follow two letters. Not inside 72b, 1.7b or a3b."""


def search_models(words: Iterable[str]) -> tuple[CatalogModel, ...]:
    """Search the known models by words, all of which must match.

    A word matches where a part of a name begins, in upper or lower case: of the hub id, of LLaMA-Factory's names, of
    the family or of the ModelScope id. So `qwen 7b` finds `Qwen/Qwen2.5-7B-Instruct`, and neither 72B nor 1.7B.
    """
    patterns = [re.compile(_PART + re.escape(_plain(word))) for text in words for word in text.split()]
    return tuple(
        model
        for model, text in zip(known_models(), _texts(), strict=True)
        if all(pattern.search(text) for pattern in patterns)
    )


def unmatched_words(words: Iterable[str]) -> tuple[str, ...]:
    """Words that match no model at all."""
    return tuple(word for text in words for word in text.split() if not search_models([word]))


@cache
def _texts() -> tuple[str, ...]:
    return tuple(_plain(" ".join((one.id, *one.names, one.family, one.modelscope))) for one in known_models())


def _plain(text: str) -> str:
    """Text in lower case, with `1_8B` written `1.8b` and other underscores as hyphens."""
    return re.sub(r"(?<=[0-9])_(?=[0-9])", ".", text.lower()).replace("_", "-")
