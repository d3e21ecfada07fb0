"""Addresses as others may see them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def without_secrets(address: str) -> str:
    """An address without name and password, query and fragment: any of them may be secret."""
    try:
        parts = urlsplit(address)
    except ValueError:  # as `http://[::1`
        return "a URL"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
