from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("models.csv")


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
    with FILE.open(encoding="utf-8", newline="") as file:
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
