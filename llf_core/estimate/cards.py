from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llf_core.config import ConfigError, Problem
from llf_core.estimate.devices import Device

FILE = Path(__file__).with_name("cards.toml")
MOST_CARDS = 1024
WITHOUT_BF16 = ("V100", "T4")
"""Cards older than Ampere."""
_PLACE = re.compile(
    r"(?:(?P<count>[0-9]{1,4}) *[x*\u00d7]? +)?(?P<name>.+?)(?:[ -]*(?P<size>[0-9]{1,3}) *gi?b)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Card:
    """A GPU; see `cards.toml` for units and sources.

    Attributes:
        name: as a part of the name that its driver reports.
        flops: dense operations a second in half precision.
        bandwidth: bytes a second of its memory.
        link: bytes a second in one direction to the other cards of its machine.
        network: bytes a second in one direction between machines, all ports of one together.
    """

    name: str
    size: int
    memory: int
    flops: float
    bandwidth: float
    link: float
    network: float
    machine: int


@cache
def cards() -> tuple[Card, ...]:
    """All cards of the table."""
    with FILE.open("rb") as file:
        return tuple(Card(**one) for one in tomllib.load(file)["cards"])


def card_of(device: Device) -> Card | None:
    """The card of a device by its name and memory; None if it is not in the table."""
    found = next((one.name for one in cards() if re.search(rf"\b{one.name}\b", device.name, re.IGNORECASE)), None)
    named = [one for one in cards() if one.name == found]
    return min(named, key=lambda one: abs((one.memory << 20) - device.total), default=None)


def cards_of_place(on: str) -> Device:
    """The cards of a text such as `8 x H100 80GB` or `H100`, as devices with all of their memory free.

    Raises:
        ConfigError: it names no known card, or more than `MOST_CARDS`.
    """
    found = _PLACE.fullmatch(on.strip())
    name = "" if found is None else _plain(found["name"])
    named = [one for one in cards() if name and name in {_plain(one.name), _plain(one.name).removeprefix("rtx")}]
    size = None if found is None else found["size"]
    sized = [one for one in named if size is None or one.size == int(size)]
    count = int(found["count"] or 1) if found else 0
    if not sized or not 1 <= count <= MOST_CARDS:
        known = ", ".join(dict.fromkeys(f"{one.name} {one.size}GB" for one in named or cards()))
        sentence = (
            f"Expected 1 to {MOST_CARDS:,} cards." if sized else f"Expected a text such as 8 x H100 80GB, of: {known}."
        )
        raise ConfigError((Problem("invalid", "on", on, f"`on` is {on!r}. {sentence}"),))
    card = sized[0]
    memory = card.memory << 20
    return Device("cuda", f"{card.name} {card.size}GB", memory, memory, card.name not in WITHOUT_BF16, count)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removesuffix("sxm")
