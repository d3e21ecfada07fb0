"""`llf validate` on configs that were made to break it: 0, 2 and a sentence; never a trace, never long, never large."""

from __future__ import annotations

import sys
import time
import traceback

import psutil
import pytest

from llf_core import cli
from tests.core.config.hostile import hostile

LONGEST = 10.0
LARGEST = 500 << 20
"""Bytes that all of them together may add to this process."""


def outcome(arguments, monkeypatch):
    """What the command does in this process: its exit code, or the trace of what it died of."""
    monkeypatch.setattr(sys, "argv", ["llf", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    except BaseException:  # noqa: BLE001 - the finding
        return traceback.format_exc()
    return 0


def check(seeds, folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = psutil.Process().memory_info().rss
    wrong = []
    for seed in seeds:
        path = folder / f"hostile{'.json' if seed % 11 == 0 else '.yaml'}"
        path.write_bytes(hostile(seed))
        began = time.process_time()
        code = outcome(["validate", str(path)], monkeypatch)
        took = time.process_time() - began
        said = capsys.readouterr()
        if code not in {0, 2} or took > LONGEST or "Traceback" in said.err or (code == 2 and not said.err.strip()):
            wrong.append((seed, took, code, said.err[-300:]))
    assert not wrong, "\n".join(map(str, wrong[:10]))
    assert psutil.Process().memory_info().rss - before < LARGEST


def test_hostile_configs_are_sentences(tmp_path, monkeypatch, capsys):
    check(range(0, 600, 10), tmp_path, monkeypatch, capsys)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_very_many_hostile_configs_are_sentences(tmp_path, monkeypatch, capsys):
    check(range(2000), tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("place", ["pipe", "folder", "loop", "device", "long", "nul"])
def test_what_is_no_config_is_a_sentence(tmp_path, monkeypatch, capsys, place):
    import os

    path = tmp_path / "config.yaml"
    name = {"long": "x" * 5000 + ".yaml", "nul": "a\0b.yaml", "device": "/dev/zero"}.get(place, str(path))
    if place == "pipe":
        os.mkfifo(path)
    elif place == "folder":
        path.mkdir()
    elif place == "loop":
        path.symlink_to(path)
    assert outcome(["validate", name], monkeypatch) == 2
    assert "cannot be read" in capsys.readouterr().err
