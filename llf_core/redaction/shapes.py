"""What secrets look like: names that they have, and texts that services issue."""

from __future__ import annotations

import re

STRONG = re.compile(
    r"(?:^|_)(?:api_?keys?|access_?keys?(?:_id)?|secret_?(?:access_?)?keys?|private_?keys?|account_?keys?|auth_?keys?"
    r"|signing_?keys?|encryption_?keys?|secrets?|pass(?:word|wd|phrase|code)s?|pwd|credentials?"
    r"|(?:auth|access|refresh|bearer|api|hub|session|id)_?tokens?)$",
    re.IGNORECASE,
)
"""Names of texts that nobody else may read."""
WEAK = re.compile(
    r"(?:^|_)(?:keys?|tokens?|auth|authorization|bearer|pass|pin|cookies?|sessions?|session_id|sig|signature|jwt|pat|dsn"
    r"|salt|webhook)$",
    re.IGNORECASE,
)
"""Names that may be so too: where the text looks random."""
PUBLIC = re.compile(
    r"(?:^|_)(?:hash|hashes|sha|sha1|sha256|sha512|md5|digest|checksum|commit|revision|uuid|guid|fingerprint|etag|alphabet"
    r"|chars|charset|letters|digits)(?:$|_)",
    re.IGNORECASE,
)
"""Names of texts that look random and are no secret."""
VARIABLE = re.compile(
    r"(?:^|_)(?:TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION|APIKEYS?|JWT|PAT)(?:_|$)"
    r"|(?:TOKEN|SECRET|PASSWORD|PASSWD|APIKEY)$|_(?:PWD|PASS|AUTH)$"
)
"""Names, in capitals, of environment variables with secrets."""
PARAMETER = (
    r"(?:[\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|signature|credentials?)|sig|key|auth|authorization|pwd|pass|jwt"
    r"|policy|x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|key-pair-id)"
)
"""Names of parameters of an address."""

ISSUED: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (marks, re.compile(pattern, re.DOTALL))
    for marks, pattern in (
        (
            ("PRIVATE KEY",),
            r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY[A-Z ]*)-----(?:.*?-----END (?P=kind)-----|.*\Z)",
        ),
        (("hf_",), r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}"),
        (("sk-", "pk-"), r"(?<![A-Za-z0-9_-])[sp]k-(?=[\w-]*\d)[\w-]{12,}"),
        (("_live_", "_test_"), r"(?<![A-Za-z0-9])(?:[rsp]k|whsec)_(?:live|test)_\w{12,}"),
        (("gh", "github_pat_"), r"(?<![A-Za-z0-9])(?:gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{20,})"),
        (("gl",), r"(?<![A-Za-z0-9])gl(?:pat|dt|rt|cbt|soat)-[\w-]{16,}"),
        (("xox", "xapp-"), r"(?<![A-Za-z0-9])(?:xox[a-z]|xapp)-[\w-]{10,}"),
        (("AKIA", "ASIA", "AROA"), r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
        (("AIza",), r"(?<![A-Za-z0-9])AIza[\w-]{30,}"),
        (("ya29.",), r"(?<![A-Za-z0-9])ya29\.[\w.-]{16,}"),
        (("eyJ",), r"(?<![A-Za-z0-9])eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?"),
        (("npm_", "nvapi-", "gsk_", "r8_", "dop_v1_", "pypi-", "lsv2_", "xai-", "pplx-", "tvly-", "jina_"),
         r"(?<![A-Za-z0-9])(?:npm_|nvapi-|gsk_|r8_|dop_v1_|pypi-|lsv2_|xai-|pplx-|tvly-|jina_)(?=[\w-]*\d)[\w-]{16,}"),
        (("SG.",), r"(?<![A-Za-z0-9])SG\.[\w-]{16,}\.[\w-]{16,}"),
        (("AGE-SECRET-KEY-",), r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
        (("hooks.slack.com/",), r"(?<=hooks\.slack\.com/)(?:services|workflows)/[\w/-]{16,}"),
    )
)  # fmt: skip
"""What the keys of well-known services look like: texts of which one stands in each, and the pattern."""
EMBEDDED: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (marks, re.compile(pattern, re.IGNORECASE))
    for marks, pattern in (
        # Name and password of an address; the first form also with a slash or an @ in the password.
        (("@",), r"(?<=://)[^\s'\"<>@/:\\]*:(?!\d{1,5}(?:[/?#]|$))(?!\*\*\*@)[^\s'\"<>@\\]+@(?:[^\s'\"<>@/\\]+@)*(?=[^\s/])"),
        (("@",), r"(?<=://)(?!\*\*\*@)[^\s'\"<>@/:\\]{16,}@"),
        (("=", "%3d"), rf"(?<=[?&;#])(?:amp;)?{PARAMETER}(?:=|%3D)(?!\*\*\*)[^&\s'\"#<>\\]+"),
        (("%3d",), rf"(?:%3F|%26){PARAMETER}%3D(?!\*\*\*)(?:(?!%26)[^&\s'\"#<>\\])+"),
        (
            ("earer ", "asic ", "EARER ", "ASIC ", "oken "),
            r"(?<![A-Za-z])(?:bearer|basic|authorization: *token)\s+(?=[^\s'\"]*[\d=])[A-Za-z0-9+/._~=-]{10,}",
        ),
        (
            ("=", ":"),
            r"(?<![A-Za-z0-9_])(?:[A-Za-z0-9_]*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|SECRET_KEY|ACCESS_KEY"
            r"|ACCOUNTKEY|SHAREDACCESSKEY|PWD)=(?!\*\*\*)(?=[^\s'\";,&\\]*[\d+/$!%^*=])[^\s'\";,&\\]{6,}",
        ),
    )
)
"""Secrets within something else: an address, a header, an assignment. What is kept of a match is in `text`."""


def plain_name(name: str) -> str:
    """A name with its words apart: `X-API-Key` and `apiKey` become `X_API_Key` and `api_Key`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name)
