"""Signatures that prove which runs were created here, and which code the user has allowed.

Both use a key of this `LLF_HOME` that only its owner can read. The key file stores its own inode, so a copy in another
folder (an `LLF_HOME` that someone else packed) is invalid.

Finds and reads Python files of models and run folders, with limits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.runs.files import locked
from llf_core.untrusted import open_file, read_bytes, read_object, real_path
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from llf_core.runs.folder import RunFolder

KEY, TRUSTED = "trust.key", "trusted.json"
KEY_BYTES = 32
MAX_BYTES = 1 << 20
PRIVATE = 0o600

GENERATED_FOLDERS = (".output", "cache")
"""Folders that a trainer creates besides `output/` and `checkpoints/`."""


def sign_run(folder: RunFolder) -> None:
    """Sign the config and the Python files of a run that this user has just created or allowed.

    Nothing is signed, and the run is treated as created elsewhere, without a key of this user (the home has none, and
    none can be written), with more code than a person could review, with a config or Python file that is a link, not a
    regular file or not readable, or if the signature cannot be written.
    """
    key = _key(folder.home, make=True)
    if key is None:
        return
    with suppress(OSError, ValueError):
        _write(folder.proof, {"v": 1, "hmac": _sign(key, "run", _executed(folder))})


def is_signed(folder: RunFolder) -> bool:
    """Whether a run was created or allowed by this user on this machine, with config and code unchanged since."""
    key = _key(folder.home)
    if key is None:
        return False
    try:
        if folder.path.stat().st_uid != os.geteuid():
            return False
        proof, executed = _read(folder.proof).get("hmac"), _executed(folder)
    except (OSError, ValueError):
        return False
    return _is_signature(proof, key, "run", executed)


def is_allowed(folder: Path, sha256: str, home: Path) -> bool:
    """Whether the user has allowed the code in a folder, in exactly this version."""
    return sha256 in _allowed(home).get(_place(folder), ())


def allow(folder: Path, sha256: str, home: Path) -> None:
    """Record that the user allows the code in a folder, in exactly this version; the list is signed."""
    home.mkdir(parents=True, exist_ok=True)
    key = _key(home, make=True)
    if key is None:
        raise PermissionError(f"{home / KEY} cannot be written, so code cannot be allowed there.")
    with locked(home / f".{TRUSTED}.lock"):
        allowed = _allowed(home)
        name = _place(folder)
        if sha256 in allowed.get(name, ()):
            return
        allowed[name] = [*allowed.get(name, ()), sha256]
        _write(home / TRUSTED, {"v": 1, "allowed": allowed, "hmac": _sign(key, "allowed", allowed)})


def _place(folder: Path) -> str:
    """The path of a folder in the list: in UTF-8, so that it reads back unchanged and the signature stays valid."""
    return os.fsencode(real_path(folder)).decode("utf-8", "backslashreplace")


def _allowed(home: Path) -> dict[str, list[str]]:
    """Hashes of allowed code by folder; empty if the list is not signed with this home's key."""
    key, kept = _key(home), _read(home / TRUSTED)
    allowed, mark = kept.get("allowed"), kept.get("hmac")
    if key is None or not isinstance(allowed, dict) or not _is_signature(mark, key, "allowed", allowed):
        return {}
    return allowed


def _executed(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of a run's config and of each Python file in its folder, by name."""
    made = (folder.output, folder.checkpoints, *(folder.path / name for name in GENERATED_FOLDERS))
    files = [folder.config, *python_files(folder.path, exclude=made)]
    return {os.path.relpath(path, folder.path): hashlib.sha256(read_code(path)).hexdigest() for path in files}


def _is_signature(found: object, key: bytes, what: str, value: object) -> bool:
    """Compare as bytes: `compare_digest` takes only ASCII strings, and a file may hold any text."""
    signature = _sign(key, what, value).encode()
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "replace"), signature)


def _sign(key: bytes, what: str, value: object) -> str:
    text = json.dumps([what, value], sort_keys=True, ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key(home: Path, *, make: bool = False) -> bytes | None:
    """The key of a home; None if there is none, or it belongs to another user."""
    key = _read_key(home / KEY)
    if key is None and make:
        with suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            _make_key(home / KEY)
            key = _read_key(home / KEY)
    return key


def _read_key(path: Path) -> bytes | None:
    try:
        descriptor = open_file(path)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if about.st_uid != os.geteuid() or about.st_mode & 0o077:
            return None
        try:
            kept = json.loads(file.read(MAX_BYTES))
            return bytes.fromhex(kept["key"]) if kept["inode"] == about.st_ino else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


def _make_key(path: Path) -> None:
    """Create a key, unless another process created one first."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"v": 1, "inode": os.fstat(descriptor).st_ino, "key": secrets.token_hex(KEY_BYTES)}, file)
        with locked(path.with_name(f".{path.name}.lock")):
            if _read_key(path) is None:
                new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object from a small regular file; empty otherwise."""
    try:
        about = path.lstat()
        return read_object(path) if stat.S_ISREG(about.st_mode) and about.st_size <= MAX_BYTES else {}
    except OSError:
        return {}


def _write(path: Path, value: dict[str, object]) -> None:
    """Replace a file that only its owner can read."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file, indent=1)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


MAX_FILES, MAX_FOLDERS = 500, 5_000

MAX_CODE_BYTES = 4 << 20
"""Maximum size of a Python or JSON file of a model; code in larger files is never allowed."""


class TooMuchCodeError(UserError, ValueError):
    """A folder holds more code than a person could review."""


def python_files(folder: Path, exclude: Collection[Path] = ()) -> Iterator[Path]:
    """Find Python files in a folder and its subfolders. Links are followed, as Python does when it imports them.

    Raises:
        TooMuchCodeError: there are more than `MAX_FILES` files or `MAX_FOLDERS` folders.
    """
    found: list[Path] = []
    folders, seen = 0, set()
    for place, inner, names in os.walk(folder, followlinks=True):
        folders += 1
        real = os.path.realpath(place)
        inner[:] = sorted(name for name in inner if Path(place, name) not in exclude)
        if real in seen:  # a link to a parent folder
            inner.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in sorted(names) if name.endswith(".py")]
        if folders > MAX_FOLDERS or len(found) > MAX_FILES:
            raise TooMuchCodeError(
                f"{folder} holds more than {MAX_FILES} Python files or {MAX_FOLDERS:,} folders. "
                "Expected the code of a single model."
            )
    yield from found


def read_code(path: Path) -> bytes:
    """Read a source file to hash or display it.

    Raises:
        TooMuchCodeError: it is not a readable regular file of at most `MAX_CODE_BYTES`, or is a link in a run folder.
    """
    run = _run_of(path)
    try:
        if run is not None:
            return read_bytes(path, MAX_CODE_BYTES, run)
        return read_bytes(Path(os.path.realpath(path)), MAX_CODE_BYTES)  # files in the hub cache are links
    except OSError:
        message = f"{path} is not a regular file of at most {MAX_CODE_BYTES:,} bytes, so it was not read as code."
        raise TooMuchCodeError(message) from None


def _run_of(path: Path) -> Path | None:
    """The run folder that contains a file. Its links are not followed: they could expose files of this machine."""
    inside = (one for one in path.parents if one.parent.name in {"runs", "bin"})
    return next((one for one in inside if os.path.lexists(one / "config.yaml")), None)
