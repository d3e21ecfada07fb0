"""Asks the hubs (Hugging Face, ModelScope, Modelers) whether repositories exist, within a time limit."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from llf_core.config.paths import expanded, without_secrets
from llf_core.config.rule import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from huggingface_hub import DatasetInfo, ModelInfo

    from llf_core.config.rule import Fix

SECONDS = 3.0
HUB = "https://huggingface.co"
ABSENT = {401, 404}
TRUE = {"1", "ON", "YES", "TRUE"}


def query_hub(questions: Iterable[Question], seconds: float = SECONDS) -> dict[Question, Answer]:
    """Query the hub about all repositories at once, within a time limit; nothing is downloaded.

    Requests are made by Hugging Face's client (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, proxies), or as `mirrors`
    says. Failures of the network are answers, not errors. Threads that wait for a late answer go on until it comes or
    their connection ends.
    """
    unique = list(dict.fromkeys(questions))
    why = _unavailable()
    if why:
        return dict.fromkeys(unique, Answer(None, why))
    answers: dict[Question, Answer] = {}
    until = time.monotonic() + seconds
    # Daemon threads, so that a hub that never answers does not delay the end of the process.
    threads = [
        threading.Thread(target=_query, args=(one, seconds, until, answers), name="llf-hub", daemon=True)
        for one in unique
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return {
        one: answers.get(one) or Answer(None, f"{_address(one)} did not answer within {seconds:g} s") for one in unique
    }


def endpoint() -> str:
    """Address of the hub for messages, without user name, password and query."""
    return without_secrets((os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"))


def offline() -> bool:
    """Whether offline mode is set, in the environment or in the imported client."""
    client = sys.modules.get("huggingface_hub.constants")
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in TRUE or bool(getattr(client, "HF_HUB_OFFLINE", False))


def _unavailable() -> str:
    """Reason why the hub cannot be queried; empty if it can."""
    if offline():
        return "HF_HUB_OFFLINE is set"
    if importlib.util.find_spec("huggingface_hub") is None:
        return "huggingface_hub is not installed"
    return ""


def _query(question: Question, seconds: float, until: float, answers: dict[Question, Answer]) -> None:
    try:
        answer = _answer(question, seconds)
    except Exception as error:  # noqa: BLE001 - the network and its client fail in many ways; none ends the check
        answer = Answer(None, f"{_address(question)} did not answer ({type(error).__name__})")
    if answer.there is not None or time.monotonic() < until:  # else its client met the time limit too
        answers[question] = answer


def _address(question: Question) -> str:
    mirror = mirror_of(question.hub)
    return endpoint() if mirror is None else mirror.shown


def _answer(question: Question, seconds: float) -> Answer:
    mirror = mirror_of(question.hub)
    return _of_hugging_face(question, seconds) if mirror is None else _of_mirror(mirror, question, seconds)


def _of_mirror(mirror: Mirror, question: Question, seconds: float) -> Answer:
    try:
        mirror.files(question.name, mirror.main, seconds)
    except MirrorError as error:
        if error.status in {*ABSENT, 403}:
            return Answer(there=False, why=mirror.shown)
        return Answer(None, f"{mirror.shown} answered {error.status}")
    except Exception as error:  # noqa: BLE001 - the network and its client fail in many ways; none ends the check
        return Answer(None, f"{mirror.shown} did not answer like {mirror.label} ({type(error).__name__})")
    return Answer(there=True)


def _of_hugging_face(question: Question, seconds: float) -> Answer:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError

    try:
        fetch_repository_info(question.kind, question.name, seconds=seconds)
    except GatedRepoError:  # it is there
        return Answer(there=True)
    except HFValidationError:
        return Answer(there=False, why=endpoint())
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in ABSENT:
            return Answer(there=False, why=endpoint())
        return Answer(None, f"{endpoint()} answered {status}")
    return Answer(there=True)


WHAT = {"model": "model", "dataset": "data set"}


@dataclass(frozen=True)
class Question:
    """Whether a hub has a repository.

    Attributes:
        value: the key's whole value, as it stands in a file.
        hint: ` Did you mean …?`, or nothing.
        hub: a value of the key `hub`.
    """

    kind: Literal["model", "dataset"]
    name: str
    key: str
    value: str
    hint: str = ""
    fixes: tuple[Fix, ...] = field(default=(), compare=False)
    hub: str = "huggingface"


@dataclass(frozen=True)
class Answer:
    """Answer of a hub about a repository.

    Attributes:
        there: None if it is not known.
        why: why it is not known, or which hub has not got it.
    """

    there: bool | None
    why: str = ""


def problem_from_answer(question: Question, answer: Answer) -> Problem | None:
    """Turn the answer of a hub into an error if the repository does not exist, a note if that is not known, or None."""
    if answer.there:
        return None
    what = WHAT[question.kind]
    if answer.there is None:
        message = f"The {what} {question.name!r} could not be checked: {answer.why}.{question.hint}"
        severity: Literal["error", "note"] = "note"
    else:
        message = f"There is no {what} {question.name!r} on {answer.why}, or it is private.{question.hint}"
        severity = "error"
    return Problem("unresolved", question.key, question.value, message, question.fixes, severity, keys=(question.key,))


HUGGING_FACE = "huggingface"

REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""A branch, tag or commit of a mirror; it becomes the name of a folder."""
MAIN = "main"

LISTING = ".llf_files.json"
"""File of a downloaded model that lists its complete files: sizes and checksums by name."""


@dataclass(frozen=True)
class MirrorFile:
    """A file in the top folder of a repository.

    Attributes:
        size: bytes.
        sha256: empty if the hub does not give it.
    """

    name: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Mirror:
    """A hub of models with an interface of its own.

    Attributes:
        address_variable: environment variable of the hub's own client with another address.
        token_variable: environment variable of the hub's own client with a token.
        main: its name of the branch that Hugging Face calls `main`.
        list_path: path and query of the list of files in the top folder, from id and revision.
        file_path: path and query of a file, from id, revision and name.
        read_files: the files, from the answer to `list_path`.
    """

    label: str
    address: str
    address_variable: str
    token_variable: str
    main: str
    list_path: Callable[[str, str], str]
    file_path: Callable[[str, str, str], str]
    read_files: Callable[[Any], list[MirrorFile]]

    @property
    def endpoint(self) -> str:
        """Address that requests go to."""
        return (os.environ.get(self.address_variable) or self.address).rstrip("/")

    @property
    def shown(self) -> str:
        """Address for messages, see `without_secrets`."""
        return without_secrets(self.endpoint)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request; with the token of the environment, if there is one."""
        token = (os.environ.get(self.token_variable) or "").strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def revision(self, name: str) -> str:
        """A `model_revision` by this hub's name."""
        return self.main if name == MAIN else name

    def files(self, model: str, revision: str, seconds: float) -> list[MirrorFile]:
        """List the files in the top folder of a model.

        Args:
            model: `owner/name`.
            revision: branch, tag or commit, by this hub's name.
            seconds: how long the server may be silent; the whole answer may take three times as long.

        Raises:
            MirrorError: the hub refused the request: no such model or revision, or no access.
        """
        status, answer = read_json(f"{self.endpoint}/{self.list_path(model, revision)}", self.headers, seconds=seconds)
        if status >= 400:  # noqa: PLR2004 - refusals and errors of HTTP
            raise MirrorError(status)
        return [one for one in self.read_files(answer) if _is_plain(one.name)]


class MirrorError(Exception):
    """A mirror refused a request; `status` is that of HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the top folder: names come from a server and become files here."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0")


def _modelscope_files(answer: Mapping[str, Any]) -> list[MirrorFile]:
    entries = answer["Data"]["Files"]
    return [
        MirrorFile(str(one["Path"]), int(one["Size"]), str(one.get("Sha256") or ""))
        for one in entries
        if one.get("Type") != "tree"
    ]


def _modelers_files(answer: Mapping[str, Any]) -> list[MirrorFile]:
    return [
        MirrorFile(str(one["path"]), int(one["size"]), str(one.get("etag") or "") if one.get("is_lfs") else "")
        for one in answer["data"]["tree"]
        if one.get("type") == "file"
    ]


MOST_BYTES = 32 << 20
"""Maximum bytes of an answer; a repository of 10,000 files has about 1 million."""

TRIES = 3
"""Maximum duration of the whole answer, in multiples of `seconds`."""


def read_json(address: str, headers: Mapping[str, str], *, seconds: float) -> tuple[int, Any]:
    """HTTP status and JSON value of a server's answer, with limits on size and time; None from status 400.

    Args:
        headers: of the request. Those of authorization are not sent on to another server.
        seconds: how long the server may be silent; the whole answer may take three times as long.
    """

    def request() -> tuple[int, Any]:
        status, body, _ = _read(address, headers, seconds)
        return status, json.loads(body) if status < 400 else None  # noqa: PLR2004 - refusals and errors of HTTP

    found: tuple[int, Any] = _within(request, seconds)
    return found


def _within(request: Callable[[], Any], seconds: float) -> Any:
    """Result of a request that may take `TRIES` times as long as the server may be silent."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(request())
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            answers.put(error)

    # A server that sends a byte now and then never times out, so the thread may outlive this call.
    threading.Thread(target=answer, name="llf-hub", daemon=True).start()
    try:
        found = answers.get(timeout=TRIES * seconds)
    except queue.Empty:
        raise TimeoutError(f"no complete answer within {TRIES * seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _read(address: str, headers: Mapping[str, str], seconds: float) -> tuple[int, bytes, Any]:
    from huggingface_hub.utils import get_session

    body = bytearray()
    with get_session().stream("GET", address, headers=dict(headers), timeout=seconds) as said:
        for part in said.iter_bytes():
            body += part
            if len(body) > MOST_BYTES:
                raise ValueError(f"its answer has more than {MOST_BYTES:,} bytes")
    return said.status_code, bytes(body), said


MIRRORS: dict[str, Mirror] = {
    # Paths of modelscope-hub 0.5.1 and openmind-hub 1.3.0, the hubs' own clients.
    "modelscope": Mirror(
        label="ModelScope",
        address="https://modelscope.cn",
        address_variable="MODELSCOPE_ENDPOINT",
        token_variable="MODELSCOPE_API_TOKEN",  # noqa: S106 - the name of a variable
        main="master",
        list_path=lambda model, revision: (
            f"api/v1/models/{model}/repo/files?{urlencode({'Revision': revision, 'Recursive': 'False'})}"
        ),
        file_path=lambda model, revision, name: (
            f"api/v1/models/{model}/repo?{urlencode({'Revision': revision, 'FilePath': name})}"
        ),
        read_files=_modelscope_files,
    ),
    "modelers": Mirror(
        label="Modelers",
        address="https://modelers.cn",
        address_variable="OPENMIND_HUB_ENDPOINT",
        token_variable="OM_HUB_TOKEN",  # noqa: S106 - the name of a variable
        main="main",
        list_path=lambda model, revision: f"api/v1/file/{model}?{urlencode({'path': '', 'ref': revision})}",
        file_path=lambda model, revision, name: f"api/v1/file/{model}/{quote(revision, safe='')}/media/{quote(name)}",
        read_files=_modelers_files,
    ),
}
"""Hubs by the values of `hub`."""


def mirror_of(hub: str) -> Mirror | None:
    """The mirror that a value of `hub` names; None for Hugging Face."""
    return MIRRORS.get(hub)


def cache_folder(hub: str, name: str, revision: str, cache_dir: str | None) -> Path:
    """Folder of a mirror's model in the cache.

    Args:
        hub: value of the key `hub`.
        name: `owner/name`.
        revision: branch, tag or commit, by the mirror's name.
        cache_dir: `cache_dir` of a config. Default: `llf` in the user's cache folder (`XDG_CACHE_HOME`).
    """
    root = Path(cache_dir) if cache_dir else expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "llf"
    return root / hub / name / revision


def fetch_repository_info(
    kind: Literal["model", "dataset"], name: str, revision: str | None = None, *, seconds: float
) -> ModelInfo | DatasetInfo:
    """Fetch the metadata of a repository from the hub at `HF_ENDPOINT`, with limits on size and time.

    The client's own function waits for as long as a server goes on sending, and reads all of it.

    Args:
        name: `owner/name`.
        revision: a branch, tag or commit. Default: the newest commit.
        seconds: how long the server may be silent; the whole answer may take three times as long.
    """
    found: ModelInfo | DatasetInfo = _within(lambda: _request(kind, name, revision, seconds), seconds)
    return found


def _request(kind: str, name: str, revision: str | None, seconds: float) -> Any:
    from huggingface_hub import DatasetInfo, ModelInfo, constants
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

    validate_repo_id(name)
    path = f"api/{kind}s/{name}" + ("" if revision is None else f"/revision/{quote(revision, safe='')}")
    address = f"{(os.environ.get('HF_ENDPOINT') or constants.ENDPOINT).rstrip('/')}/{path}"
    _, body, said = _read(address, build_hf_headers(), seconds)
    kept = {key: value for key, value in said.headers.items() if not key.startswith(("content-", "transfer-"))}
    # Of the client's own class: its HTTP library has changed over versions.
    whole = type(said)(said.status_code, headers=kept, content=body, request=said.request)
    hf_raise_for_status(whole)
    return {"model": ModelInfo, "dataset": DatasetInfo}[kind](**whole.json())
