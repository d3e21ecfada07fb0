"""Memory-mapped store of the hidden states of documents, keyed by the documents' token ids."""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

KEY = 16  # bytes of a document's hash
RECORD = struct.Struct(f"<{KEY}sQII")  # key, first token, tokens, checksum


def key_of(ids: Tensor) -> bytes:
    """Key of a document in the store.

    Args:
        ids: token ids `[tokens]`, int64, on the CPU.
    """
    return blake2b(ids.contiguous().numpy().tobytes(), digest_size=KEY).digest()


class TrunkStore:
    """Append-only store of hidden states.

    The first hidden states of a document are kept, so that a resumed run reads what the first attempt wrote. A document
    counts once its index entry is written, after its states. Damaged documents are dropped when the file is opened
    again.
    """

    def __init__(self, folder: Path, *, tokens: int, width: int, dtype: torch.dtype) -> None:
        """Open or create the store.

        Args:
            folder: contains `states` and `index`; created if missing.
            tokens: capacity in tokens; disk space is used only as they are written.
            width: hidden size.
            dtype: dtype of the hidden states.

        Raises:
            OSError: the file cannot be created.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._row = width * dtype.itemsize
        self._dtype = dtype
        states = folder / "states"
        size = max(tokens * self._row, states.stat().st_size if states.exists() else 0)
        with states.open("ab") as file:
            file.truncate(size)
        self._bytes = np.memmap(states, dtype=np.uint8, mode="r+").reshape(-1, self._row)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._used = 0
        index = folder / "index"
        if index.exists():
            self._read(index.read_bytes())
        self._index = index.open("r+b" if index.exists() else "w+b")
        self._index.truncate(len(self._places) * RECORD.size)
        self._index.seek(0, 2)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def put(self, key: bytes, states: Tensor) -> bool:
        """Store the hidden states of a new document.

        Args:
            key: from `key_of`.
            states: hidden states `[tokens, width]`.

        Returns:
            Whether there was room.
        """
        count = len(states)
        if self._used + count > len(self._bytes):
            return False
        room = self._bytes[self._used : self._used + count]
        room[:] = states.detach().cpu().contiguous().view(torch.uint8).numpy()
        self._index.write(RECORD.pack(key, self._used, count, zlib.crc32(room.data)))
        self._index.flush()
        self._places[key] = (self._used, count)
        self._used += count
        return True

    def get(self, key: bytes) -> Tensor:
        """Hidden states of a document, `[tokens, width]`, as a view of the file."""
        start, count = self._places[key]
        return torch.from_numpy(self._bytes[start : start + count]).view(self._dtype)

    def _read(self, index: bytes) -> None:
        """Read the index up to the first document whose states are damaged."""
        whole = len(index) - len(index) % RECORD.size
        for key, start, count, checksum in RECORD.iter_unpack(index[:whole]):
            if start + count > len(self._bytes) or zlib.crc32(self._bytes[start : start + count].data) != checksum:
                return
            self._places[key] = (start, count)
            self._used = start + count
