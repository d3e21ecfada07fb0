"""Where a run may be copied to (`sync_to`): a folder, or an address of a file system that fsspec knows."""

from __future__ import annotations

import re

from llf_core.redaction import redact

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "ssh": "sshfs"}
"""Package of each scheme; fsspec's own `ssh` accepts any host key, so that of sshfs is needed."""
_ADDRESS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
EXPECTED = (
    "Expected a folder, file:///folder, s3://bucket/folder, gs://bucket/folder, hf://buckets/owner/name/folder or "
)
EXPECTED += "ssh://host/folder."


def scheme_of(place: str) -> str:
    """The scheme of an address; empty for a folder, also one as `file://`."""
    found = _ADDRESS.fullmatch(place)
    scheme = found["scheme"].lower() if found else ""
    return "" if scheme == "file" else scheme


def holds_credentials(place: str) -> bool:
    """Whether an address has a password, a key or options in it, which would be stored with the run."""
    found = _ADDRESS.fullmatch(place)
    if found is None or not scheme_of(place):
        return False
    before, at, _ = found["rest"].rpartition("@")
    return (bool(at) and ":" in before) or "?" in found["rest"] or redact(place, named=False) != place


def place_problem(place: str) -> str:
    """Why a run cannot be copied to a place, by its form alone, in sentences; empty if it can."""
    if holds_credentials(place):
        return (
            "`sync_to` has credentials or options in its address, which would be stored with the run. Expected an "
            "address without them: set the service's environment variables (AWS_ACCESS_KEY_ID, HF_TOKEN, …) or its "
            "configuration of this user."
        )
    scheme = scheme_of(place)
    if scheme and scheme not in PACKAGES:
        return f"`sync_to` is {place}, and nothing copies to {scheme}://. {EXPECTED}"
    if scheme == "hf" and not re.match(r"hf://buckets/[^/]+/[^/]+", place):
        return (
            f"`sync_to` is {place}: a repository keeps every checkpoint in its history, a bucket does not. Expected "
            "hf://buckets/owner/name/folder."
        )
    if scheme and not re.match(r"ssh://[^/]+/[^/]+|(?!ssh)[a-z0-9]+://[^/]+", place, re.IGNORECASE):
        return f"`sync_to` is {place}, which names no bucket, or no folder of a host. {EXPECTED}"
    return ""


def is_place(text: str) -> bool:
    """Whether a text names the copy of a run: an address or a path; `ssh://host/run` is a run on another host."""
    return "/" in text and not re.fullmatch(r"ssh://[^/]+(/[^/]*)?", text, re.IGNORECASE)
