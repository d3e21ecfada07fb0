"""The fixture `axe` itself: it must see what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser

BAD = "<main><h1>Head</h1><h4>Too low</h4><dl><p>stray</p></dl><p>outside of it: <img src='data:,'></p></main>"


def test_it_names_each_violation_below_the_selector(page: Any, axe: Callable[..., list[dict[str, Any]]]) -> None:
    page.set_content(
        f"<html lang='en'><title>t</title><body>{BAD}<div id='good'><button>Go</button></div></body></html>"
    )
    found = {one["id"]: one["where"] for one in axe(page, "main")}
    assert set(found) == {"heading-order", "definition-list", "image-alt"}
    assert found["image-alt"][0].startswith("img: <img")
    assert axe(page, "#good") == []
