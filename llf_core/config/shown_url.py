from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

USER = re.compile(r"^(//)?[^/?#@]*:[^/@]*@")
"""User name and password at the start of an address without a scheme."""


def without_secrets(address: str) -> str:
    """Remove user name, password, query and fragment from a URL: any of them may be secret.

    A name or path stays as it is unless it begins with a user name and password. `a URL` if it cannot be parsed.
    """
    if "://" not in address:
        return USER.sub("", address)
    try:
        parts = urlsplit(address)
        _ = parts.port  # no number where a password has a `/`, `?` or `#` that ends the part before it
    except ValueError:  # also `http://[::1`
        return "a URL"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
