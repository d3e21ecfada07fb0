"""The cache of prepared data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llf_core.data.example_store import DONE_FILE, cache_key, cached_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_built_once_and_again_when_asked(llf_home: Path):
    made = []

    def make(empty: Path) -> None:
        made.append(list(empty.iterdir()))
        (empty / DONE_FILE).write_text(f"{len(made)}")

    key = cache_key({"data": "a"})
    folder, cached = cached_folder(key, make)
    assert (folder, cached) == (llf_home / "cache" / "data" / key, False)
    assert cached_folder(key, make) == (folder, True)
    assert cached_folder(key, make, rebuild=True) == (folder, False)
    assert made == [[], []]
    assert (folder / DONE_FILE).read_text() == "2"


@pytest.mark.parametrize("key", ["..", "", "a/b", "../../../kept", "A" * 32, f"{'a' * 32}\n"])
def test_a_key_cannot_name_a_folder_outside_the_cache(llf_home: Path, key: str):
    kept = llf_home.parent / "kept"
    kept.mkdir()
    with pytest.raises(ValueError, match="is not a key of"):
        cached_folder(key, lambda empty: None, rebuild=True)
    with pytest.raises(ValueError, match="is not a key of"):
        cached_folder(str(kept), lambda empty: None)
    assert kept.is_dir()
