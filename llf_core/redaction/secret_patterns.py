"""Patterns of secrets: formats of keys that services issue, and what stands behind a name in code or a header."""

from __future__ import annotations

import re
from functools import cache

SECRET_NAMES = re.compile(
    r"(?:^|_)(?:api_?keys?|access_?keys?(?:_id)?|secret_?(?:access_?)?keys?|private_?keys?|account_?keys?|auth_?keys?"
    r"|signing_?keys?|encryption_?keys?|secrets?|pass(?:word|wd|phrase|code)s?|pwd|credentials?"
    r"|(?:auth|access|refresh|bearer|api|hub|session|id)_?tokens?)$",
    re.IGNORECASE,
)

POSSIBLE_SECRET_NAMES = re.compile(
    r"(?:^|_)(?:keys?|tokens?|auth|authorization|bearer|pass|pin|cookies?|sessions?|session_id|sig|signature|jwt|pat|dsn"
    r"|salt|webhook)$",
    re.IGNORECASE,
)
"""Names of values that are secret only if the value looks random."""

PUBLIC_NAMES = re.compile(
    r"(?:^|_)(?:hash|hashes|sha|sha1|sha256|sha512|md5|digest|checksum|commit|revision|uuid|guid|fingerprint|etag|alphabet"
    r"|chars|charset|letters|digits)(?:$|_)",
    re.IGNORECASE,
)
"""Names of values that look random but are public, such as hashes."""

VARIABLE = re.compile(
    r"(?:^|_)(?:TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION|APIKEYS?|JWT|PAT)(?:_|$)"
    r"|(?:TOKEN|SECRET|PASSWORD|PASSWD|APIKEY)$|_(?:PWD|PASS|AUTH)$"
)

PARAMETER = (
    r"(?:[\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|signature|credentials?)|sig|key|auth|authorization|pwd|pass|jwt"
    r"|policy|x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|key-pair-id)"
)

_PREFIXES: tuple[tuple[str, str], ...] = (
    *((prefix, "[A-Za-z0-9]{16,}") for prefix in ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    *((prefix, r"(?=[\w-]*\d)[\w-]{12,}") for prefix in ("sk-", "pk-")),
    *((f"{kind}_{where}_", r"\w{12,}") for kind in ("sk", "rk", "pk", "whsec") for where in ("live", "test")),
    *((prefix, r"(?=[\w-]*\d)[\w-]{16,}") for prefix in (
        "github_pat_", "glpat-", "gldt-", "glrt-", "glcbt-", "npm_", "nvapi-", "gsk_", "r8_", "dop_v1_", "pypi-",
        "lsv2_", "xai-", "pplx-", "tvly-", "jina_", "tskey-",
        "pscale_tkn_", "pscale_pw_", "tgp_v1_", "figd_", "wandb_v1_", "hvs.", "hvb.", "dp.pt.", "dp.st.", "glsa_",
        "sb_secret_", "PMAK-",
    )),
    *((prefix, r"(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}") for prefix in (
        "rpa_", "lin_api_", "lin_oauth_", "ntn_", "shpat_", "shpca_", "shppa_", "shpss_", "api_org_", "cfut_", "cfat_",
        "sntrys_", "sntryu_", "rdme_", "nfp_", "sbp_",
    )),
    *((prefix, "[a-f0-9]{32}(?![A-Za-z0-9])") for prefix in ("dapi", "SK")),
    *((prefix, r"(?=\w*\d)[A-Za-z0-9]{22}(?![A-Za-z0-9])") for prefix in ("ak-", "as-")),
    *((prefix, r"[\w-]{10,}") for prefix in ("xoxa-", "xoxb-", "xoxe-", "xoxp-", "xoxr-", "xoxs-", "xapp-")),
    *((prefix, "[A-Z0-9]{16}(?![A-Za-z0-9])") for prefix in ("AKIA", "ASIA", "AROA")),
    ("AIza", r"[\w-]{30,}"),
    ("ya29.", r"[\w.-]{16,}"),
    ("eyJ", r"[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)?"),
    ("SG.", r"[\w-]{16,}\.[\w-]{16,}"),
    ("AGE-SECRET-KEY-1", "[A-Z0-9]{20,}"),
)  # fmt: skip
"""Prefixes of keys that well-known services issue, and the pattern that follows."""

SERVICE_KEYS: tuple[tuple[str, str], ...] = (
    (
        "PRIVATE KEY",
        r"(?s)-----BEGIN (?P<kind>[A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20})-----(?:.*?-----END (?P=kind)-----|.*\Z)",
    ),
    ("hooks.slack.com/", r"hooks\.slack\.com/(?:services|workflows)/[\w/-]{16,}"),
    ("hf_", r"hf_[A-Za-z0-9]{34}(?![A-Za-z0-9_])"),  # also behind a letter: its length tells it from a name
    # A literal prefix lets the regular expression engine skip long texts without it quickly.
    *((prefix, f"{re.escape(prefix)}(?<![A-Za-z0-9_-]{re.escape(prefix)}){rest}") for prefix, rest in _PREFIXES),
)
"""Key formats of well-known services: a substring that every key contains, and the full pattern.

Compiled only when their substring occurs, for the start time of a command.
"""
compiled = cache(re.compile)
_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "PWD")

_USER = r"[^\s'\"<>@/:\\]*:(?!\d{1,5}(?:[/?#]|$))"
"""User name of a URL, and the colon that no port follows."""

_CHARACTER = r"(?:[^\s'\"<>@\\]|\\u[0-9a-f]{4})"
"""A character of a password; JSON escapes some of them."""

_ESCAPED = r"(?:(?!:\\/\\/)[^\s'\"<>@])"
"""A character of a password where each slash is written with a backslash; not the beginning of the next URL."""
_NEXT_URL = r"[,;|][a-z][a-z0-9+.-]*://"

EMBEDDED: tuple[tuple[tuple[tuple[str, ...], ...], re.Pattern[str]], ...] = tuple(
    (marks, re.compile(pattern, re.IGNORECASE))
    for marks, pattern in (
        # User name and password of a URL. The first form also allows a slash or an @ in the password, the second one
        # `://`, the third one quotes, where the text is a URL and nothing else. They end where the next URL begins, so
        # that a text of many takes no longer than its length.
        (
            (("://",), ("@",)),
            (
                rf"(?<=://){_USER}(?!//\*\*\*@)(?:(?!://){_CHARACTER})+@(?:[^\s'\"<>@/\\]+@)*"
                r"(?:[^\s'\"<>@/\\.:]+/[^\s'\"<>@\\:]*@)?(?=[^\s/])"
            ),
        ),
        (
            (("://",), ("@",)),
            (
                rf"(?<=://){_USER}(?:(?!://|{_NEXT_URL}){_CHARACTER})*"
                rf"(?:://(?:(?!://|{_NEXT_URL}){_CHARACTER})*){{1,2}}(?<!\*\*\*)@(?=[^\s/])"
            ),
        ),
        ((("://",), ("@",)), rf"\A[a-z][a-z0-9+.-]*://(?P<secret>{_USER}[^\s@'\"<>\\]*['\"<>\\][^\s@]*)@(?=[^\s/])"),
        # the same where JSON writes each slash with a backslash, and percent-encoded
        ((("\\/",), ("@",)), rf"(?<=:\\/\\/)[^\s'\"<>@/:\\]*:{_ESCAPED}+(?::\\/\\/{_ESCAPED}*){{0,2}}@"),
        (
            (("://",), ("%3a", "%3A"), ("@",)),
            r"(?<=://)(?!\*\*\*@)(?:(?!%3A)[^\s'\"<>@/:\\])*%3A[^\s'\"<>@/\\]*(?<!\*\*\*)@",
        ),
        (
            (("%2f", "%2F"), ("%40",)),
            r"(?<=%3A%2F%2F)(?!\*\*\*)(?:(?!%2F|%40|%3A)[^\s'\"<>&@])*%3A(?:(?!%40|%2F|%3A)[^\s'\"<>&])+%40",
        ),
        ((("://",), ("@",)), r"(?<=://)(?!\*\*\*@)[^\s'\"<>@/:\\]{16,}(?<!\*\*\*)@"),
        (
            (("=", "%3d", "%3D"), ("?", "&", ";", "#")),
            rf"(?<=[?&;#])(?:amp;)?{PARAMETER}(?:=|%3D)(?!\*\*\*)[^&\s'\"#<>\\]+",
        ),
        ((("%3d", "%3D"),), rf"(?:%3F|%26){PARAMETER}%3D(?!\*\*\*)(?:(?!%26)[^&\s'\"#<>\\])+"),
        (
            (("earer ", "asic ", "EARER ", "ASIC ", "oken "),),
            r"(?<![A-Za-z])(?:bearer|basic|authorization: *token)\s+(?=[^\s'\"]*[\d=])[A-Za-z0-9+/._~=-]{10,}",
        ),
        (
            (tuple(f"{form}=" for name in _NAMES for form in (name, name.lower(), name.capitalize())),),
            (
                r"(?<![A-Za-z0-9_])(?:[A-Za-z0-9_]*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|SECRET_KEY|ACCESS_KEY"
                r"|ACCOUNTKEY|SHAREDACCESSKEY|PWD)=(?!\*\*\*)(?=[^\s'\";,&\\]*[\d+/$!%^*=])[^\s'\";,&\\]{6,}"
            ),
        ),
    )
)
"""Secrets embedded in URLs, headers and assignments: substrings of which one per group must occur, and the pattern."""


def split_words(name: str) -> str:
    """Separate the words of a name with underscores: `X-API-Key` becomes `X_API_Key`, `apiKey` becomes `api_Key`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name)


_NAME = (
    r"(?<![A-Za-z0-9])(?:api[_-]?key|(?:secret[_-]?)?access[_-]?key|secret[_-]?key|private[_-]?key|account[_-]?key"
    r"|auth[_-]?key|(?:client[_-]?)?secret|passw(?:or)?d|passphrase|pwd|credential"
    r"|(?:auth|access|refresh|bearer|api|hub|hf|session|security)[_-]?token)"
)

_PUBLIC = r"(?!\*\*\*|[<{\[`]|\$[A-Z_{(])"
"""No secret: one that was replaced, a placeholder, or the name of a variable."""
_SCHEME = r"(?:bearer|basic|token|api-?key|key|digest|negotiate|oauth|hawk|signature|aws4-hmac-sha256)"

_FIELD = r"[\w-]+=\\?\"?[^\s,'\"\\]*\\?\"?"
"""A part of a header with several, such as `Signature=…`."""

_DIGIT_WITHIN = 256
"""Characters of a value that are searched for a digit, which a word does not have; limited to stay linear."""
_QUOTE = r"\\?[\"']"

_NAME_MARKS = (
    *("key", "Key", "KEY", "ecret", "ECRET", "assw", "ASSW", "assphrase", "ASSPHRASE", "pwd", "PWD", "Pwd"),
    *("oken", "OKEN", "redential", "REDENTIAL"),
)

NAMED: tuple[tuple[tuple[tuple[str, ...], ...], re.Pattern[str]], ...] = tuple(
    (marks, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for marks, pattern in (
        # "password": "…", password='…'
        (
            (_NAME_MARKS, (":", "="), ("'", '"')),
            (
                rf"{_NAME}s?[\"']?[ \t]*[:=][ \t]*b?(?P<quote>[\"']){_PUBLIC}"
                r"(?P<secret>(?:\\[^\r\n]|(?!(?P=quote))[^\r\n\\]){1,4096})"
            ),
        ),
        # the same in JSON that is a string of JSON
        (
            (_NAME_MARKS, (":", "="), ('\\"', "\\'")),
            rf"{_NAME}s?(?:\\[\"'])?[ \t]*[:=][ \t]*\\[\"']{_PUBLIC}(?P<secret>[^\"'\\\r\n]+)",
        ),
        # api_key: …, API_KEY = …; a digit tells it from a word
        (
            (_NAME_MARKS, (":", "=")),
            (
                rf"{_NAME}[ \t]*[:=][ \t]*{_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\";,&\\<>]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\";,&\\<>]{{6,}})"
            ),
        ),
        # a line of YAML that is nothing else
        (
            (_NAME_MARKS, (":",)),
            (
                r"^[ \t]*(?:-[ \t]+)?(?:[A-Za-z0-9]+[_-])*?(?:api[_-]?key|secret[_-]?key|access[_-]?key|passw(?:or)?d"
                rf"|passphrase|pwd)[ \t]*:[ \t]+(?!null|none|true|false){_PUBLIC}"
                r"(?P<secret>[^\s'\"#&,;\\]{6,})(?=[ \t]*$|[ \t]+#)"
            ),
        ),
        # --api-key …, --password=…
        (
            (("--",), _NAME_MARKS),
            (
                r"(?<![\w-])--(?:[A-Za-z0-9]+[_-])*?(?:api[_-]?key|(?:secret|access|private|auth)[_-]?key|secret"
                rf"|passw(?:or)?d|passphrase|pwd|token)(?:=|[ \t]+){_QUOTE}?(?!-){_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\"\\]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\"\\]{{4,}})"
            ),
        ),
        # Authorization: SCHEME …
        (
            (("uthorization", "UTHORIZATION"),),
            (
                rf"(?<![A-Za-z0-9])authorization(?:{_QUOTE})?[ \t]*[:=,][ \t]*b?(?:{_QUOTE})?{_SCHEME}[ \t]+(?!\*\*\*)"
                rf"(?P<secret>{_FIELD}(?:,[ \t]*{_FIELD})*|[^\s'\"\\]{{6,}})"
            ),
        ),
        (
            (("uthorization", "UTHORIZATION"),),
            (
                rf"(?<![A-Za-z0-9])authorization(?:{_QUOTE})?[ \t]*[:=,][ \t]*b?(?:{_QUOTE})?(?!{_SCHEME}\b){_PUBLIC}"
                rf"(?P<secret>(?=[^\s'\"\\]{{0,{_DIGIT_WITHIN}}}\d)[^\s'\"\\]{{6,}})"
            ),
        ),
        (
            (("ookie", "OOKIE"), ("=",)),
            (
                rf"(?<![A-Za-z0-9])cookie(?:{_QUOTE})?[ \t]*:[ \t]*b?(?:{_QUOTE})?(?!\*\*\*)"
                r"(?P<secret>[\w.-]+=[^\r\n\"'\\]+)"
            ),
        ),
    )
)
"""Substrings of which one per group must occur, and the pattern, whose group `secret` is replaced."""
