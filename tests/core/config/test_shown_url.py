import pytest

from llf_core.config.paths import without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:hunter2@host:80/x?token=1#f", "https://host:80/x"),
        ("me:hunter2@host:80/x", "host:80/x"),
        ("//me:hunter2@host/x", "host/x"),
        ("http://[::1", "a URL"),
        ("https://me:hunter#2@host/x", "a URL"),
        ("https://me:hunter/2@host/x", "a URL"),
        ("owner/name@v1", "owner/name@v1"),
        ("C:/data/a@b.json", "C:/data/a@b.json"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address, shown):
    assert without_secrets(address) == shown
