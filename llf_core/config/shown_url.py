"""Addresses as others may see them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def without_secrets(address: str) -> str:
    """Remove user name, password, query and fragment from a URL before a message repeats it: any of them may be secret.

    Returns:
        The rest of the URL, or `a URL` if it cannot be parsed.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # as `http://[::1`
        return "a URL"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
