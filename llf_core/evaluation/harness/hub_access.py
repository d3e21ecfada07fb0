from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFLINE = "HF_HUB_OFFLINE"
VARIABLES = (OFFLINE, "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


@contextmanager
def hub_access(allowed: bool) -> Iterator[None]:
    """Context manager in which data sets and metrics come from the cache alone, unless downloads are allowed.

    The client and the environment variables in `VARIABLES` are in offline mode.
    """
    if allowed:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    places = [vars(datasets.config), vars(huggingface_hub.constants)]
    before = [place[OFFLINE] for place in places]
    variables = {name: os.environ.get(name) for name in VARIABLES}
    for place in places:
        place[OFFLINE] = True
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place[OFFLINE] = value
        for name, text in variables.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
