"""Worker processes that encode data and are killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import Any

import pytest

from llf_core.data.build import encode_all
from llf_core.data.errors import DataError
from llf_core.data.word_cache import CachedTokenizer


@dataclass
class KilledEncoder:
    """Encodes chunks until one that kills the process; the parent never encodes."""

    parent: int = field(default_factory=os.getpid)
    library: Any = None

    def encode(self, group: list[Any]) -> list[Any]:
        assert os.getpid() != self.parent
        if "kill" in group:
            os.kill(os.getpid(), signal.SIGKILL)
        return group


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llf_core.data.build.SERIAL_CHUNKS", 0)
    monkeypatch.setattr("llf_core.data.build.chunks_of", lambda records: ([one] for one in records))
    monkeypatch.setattr("llf_core.data.build.usable_cpus", lambda: 2)


@pytest.mark.timeout(120)
def test_a_killed_worker_ends_the_preparation_with_a_sentence():
    found = encode_all(KilledEncoder(), ["a", "b", "kill", *["c"] * 20], 2)  # type: ignore[arg-type, list-item]
    with pytest.raises(DataError, match=r"ended before it was done.* Lower preprocessing_num_workers \(2\)"):
        list(found)


@pytest.mark.timeout(120)
def test_chunks_come_in_order_and_an_end_in_between_leaves_no_process():
    found = encode_all(KilledEncoder(), [str(number) for number in range(30)], 2)  # type: ignore[arg-type, misc]
    assert [next(found) for _ in range(5)] == [[str(number)] for number in range(5)]
    found.close()  # type: ignore[attr-defined]
    import multiprocessing

    assert multiprocessing.active_children() == []


class StoppingEncoder:
    """Raises an error of a bug for one chunk that a generator could take for the end of the data."""

    library = CachedTokenizer.__new__(CachedTokenizer)

    def encode(self, group: list[str]) -> list[str]:
        if group == ["stop"]:
            raise StopIteration
        return group


def test_an_error_of_a_chunk_is_not_taken_for_the_end_of_the_data():
    found = encode_all(StoppingEncoder(), ["a", "stop", "b"])  # type: ignore[arg-type, list-item]
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(found)
