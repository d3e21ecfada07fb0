"""Name, tags and note; and the facts in env.json."""

import json
import threading

import pytest

from llf_core.runs import read_meta, update_env, update_meta


def test_a_change_counts_the_revision_up(folder):
    assert update_meta(folder, note="good") == {"revision": 2, "name": "a run", "tags": [], "note": "good"}
    assert update_meta(folder, tags=["a"])["revision"] == 3
    assert read_meta(folder) == {"revision": 3, "name": "a run", "tags": ["a"], "note": "good"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"revision": "x", "name": 3, "tags": "no", "note": null}'])
def test_garbage_counts_as_empty(folder, text):
    folder.meta.write_text(text)
    meta = read_meta(folder)
    assert (meta["name"], meta["tags"], meta["note"]) == (folder.id, [], "")
    assert update_meta(folder, name="new")["revision"] == 1


def test_two_views_lose_nothing(folder):
    threads = [threading.Thread(target=update_meta, args=(folder,), kwargs={name: name}) for name in ("note", "name")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_meta(folder) == {"revision": 3, "name": "name", "tags": [], "note": "note"}


def test_env_facts_are_merged(folder):
    update_env(folder, packages={"torch": "2"}, seed=1, device={"type": "cpu"})
    update_env(folder, packages={"peft": "1"}, device={"type": "cuda"}, data={"fingerprint": "f"})
    assert json.loads(folder.env.read_text()) == {
        "format": 1, "packages": {"torch": "2", "peft": "1"}, "seed": 1, "device": {"type": "cuda"},
        "data": {"fingerprint": "f"},
    }  # fmt: skip
