"""The judge that a user has named. No torch."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llf_core.chat.target import Target, find_target
from llf_core.config.paths import expanded, without_secrets
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.judge.rubric import DEFAULT_RUBRIC
from llf_core.untrusted import UnreadableError, read_bytes

if TYPE_CHECKING:
    from llf_core.launch import Run
    from llf_core.runs import RunFolder

MAX_TOKENS = 512
MAX_RUBRIC = 20_000
"""A rubric is part of each request."""
TIMEOUT_SECONDS = 120.0
LONGEST_TIMEOUT = 86_400.0
"""A day."""
CALLS = "/chat/completions"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Judge:
    """The judge of answers: a model, or an endpoint with OpenAI's API.

    It is plain JSON and holds no secret: of the key of an endpoint only the name of its environment variable.

    Attributes:
        target: the model; None for an endpoint.
        url: base URL of the endpoint, such as `https://api.openai.com/v1`.
        timeout: seconds that one answer of the endpoint may take.
    """

    rubric: str = DEFAULT_RUBRIC
    target: Target | None = None
    url: str = ""
    model: str = ""
    key_variable: str | None = None
    timeout: float = TIMEOUT_SECONDS

    @property
    def name(self) -> str:
        """The name of the model, or `MODEL at HOST`."""
        return self.target.name if self.target is not None else f"{self.model} at {urlsplit(self.url).netloc}"

    def key(self) -> str | None:
        """The key of the endpoint, from the environment; None for none.

        Raises:
            EvaluationError: the environment variable is not set, or its value cannot be a key.
        """
        if self.key_variable is None:
            return None
        value = os.environ.get(self.key_variable, "").strip()
        if not value:
            raise EvaluationError(
                f"The environment variable {self.key_variable} is not set.",
                "Set it to the key of the judge's endpoint.",
            )
        if not (value.isascii() and value.isprintable()):
            raise EvaluationError(f"The value of {self.key_variable} has characters that a key cannot have.")
        return value

    @classmethod
    def read(cls, given: dict[str, Any] | None) -> Judge | None:
        """The judge whose `asdict` is given, from which `target` is removed."""
        if given is None:
            return None
        target = given.pop("target")
        return cls(target=None if target is None else Target(**target), **given)


def judge_of(  # noqa: PLR0913 - a judge and its settings
    judge: str | Path | Run | RunFolder | Judge | None,
    *,
    model: str | None = None,
    key_variable: str | None = None,
    rubric: str | Path | None = None,
    timeout: float = TIMEOUT_SECONDS,
    home: Path | None = None,
) -> Judge | None:
    """The judge that a user has named, checked before a model is loaded or anything is sent.

    Args:
        judge: a model, see `find_target`, or the base URL of an endpoint with OpenAI's API; None for no judge. A
            `Judge` is returned as it is.
        model: name of the endpoint's model; None for a judge that is a model.
        key_variable: name of the environment variable with the endpoint's key; None for no key.
        rubric: text that says what makes an answer better, or the `Path` of a file with it; None for the default.
        timeout: seconds that one answer of the endpoint may take, at most a day.
        home: `LLF_HOME`; None for the environment's.

    Raises:
        EvaluationError: an argument is invalid or does not belong to this judge, or the key is not set or would be sent
            unencrypted.
    """
    if isinstance(judge, Judge):
        return judge
    of_endpoint = {"model": model, "key_variable": key_variable}
    if judge is None:
        given = [name for name, value in (of_endpoint | {"rubric": rubric}).items() if value]
        if given:
            raise EvaluationError(f"{given[0]} is given without a judge.", "Name a model or the URL of an endpoint.")
        return None
    text = _rubric(rubric)
    if not (isinstance(judge, str) and judge.strip().lower().startswith(("http://", "https://"))):
        if given := [name for name, value in of_endpoint.items() if value]:
            raise EvaluationError(
                f"{given[0]} is given, and the judge {judge} is no endpoint.", "Expected a URL such as https://host/v1."
            )
        return Judge(text, find_target(judge, home))
    url = _url(judge.strip())
    if not model or not model.strip():
        raise EvaluationError("The judge is an endpoint, and its model is not named.", "Name the model to ask for.")
    if key_variable is not None and not VARIABLE.fullmatch(key_variable):
        raise EvaluationError(
            "The key of the judge is not the name of an environment variable.",
            "Put the key into one, such as JUDGE_KEY, and name that.",
        )
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise EvaluationError(
            f"timeout is {timeout:g}. Expected a number of seconds above 0 and at most {LONGEST_TIMEOUT:,.0f}."
        )
    found = Judge(text, None, url, model.strip(), key_variable, timeout)
    parts = urlsplit(url)  # with its scheme in lower case
    if found.key() is not None and parts.scheme == "http" and not _is_local(parts.hostname or ""):
        raise EvaluationError(f"{url} is not encrypted, and the key would be sent to it.", "Expected an https URL.")
    return found


def _url(given: str) -> str:
    shown = without_secrets(given)
    try:
        parts = urlsplit(given)
        valid = (
            bool(parts.hostname) and parts.port != 0 and given.isascii() and given.isprintable() and " " not in given
        )
    except ValueError:  # a bracket that is not closed, a port that is no number
        valid = False
    if not valid:
        raise EvaluationError(f"{shown} is not a URL.", "Expected one such as https://host/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise EvaluationError(
            f"The URL of the judge {shown} has a user name, a query or a fragment, which may be secret.",
            "Put the key into an environment variable, and name that.",
        )
    return given.rstrip("/").removesuffix(CALLS)


def _is_local(host: str) -> bool:
    """Whether data sent to a host stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _rubric(given: str | Path | None) -> str:
    if given is None:
        return DEFAULT_RUBRIC
    if isinstance(given, Path):
        try:
            text = read_bytes(expanded(given)).decode("utf-8")
        except FileNotFoundError:
            raise EvaluationError(f"The rubric {given} does not exist.") from None
        except (UnreadableError, UnicodeDecodeError, OSError) as error:
            raise EvaluationError(f"The rubric {given} cannot be read as text: {error}") from None
    else:
        text = given
    if not text.strip():
        raise EvaluationError("The rubric is empty.", "Expected text that says what makes an answer better.")
    if len(text) > MAX_RUBRIC:
        raise EvaluationError(f"The rubric has {len(text):,} characters. Expected at most {MAX_RUBRIC:,}.")
    return text.strip()
