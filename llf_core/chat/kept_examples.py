"""Keeps replies of a chat as training data: rows of named data sets in `$LLF_HOME/kept`.

A data set has one file for each kind: examples (`sft`), pairs (`dpo`, `rm`) and ratings (`kto`). Each row has a column
`kept`, which training ignores: its id, and where it came from. Keeping a reply again replaces its row. The row is noted
in the conversation and its file, for `undo_kept`; if that fails, it stays in the data set.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llf_core.chat.conversation import ConversationError
from llf_core.chat.conversation_list import as_row
from llf_core.redaction import redact_nested
from llf_core.redaction.file_modes import make_folder
from llf_core.runs.files import locked, replace_file
from llf_core.runs.folder import home_folder
from llf_core.runs.jsonl import MAX_LINE_BYTES, append, encode, parse, records
from llf_core.untrusted import HISTORY_BYTES, leads_to_file, list_folder, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from llf_core.chat.conversation import ChatMessage, Conversation

KEPT = "kept"
"""Folder of the data sets in `LLF_HOME`, and column of a row's origin."""
DEFAULT = "chat"
"""Name of the default data set."""
Kind = Literal["examples", "pairs", "ratings"]
KINDS: dict[Kind, str] = {"examples": "sft", "pairs": "dpo", "ratings": "kto"}
"""Kinds of rows, and the stage that each is for."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")
_FILE = re.compile(r"(.+)-(examples|pairs|ratings)\.jsonl")


@dataclass(frozen=True)
class KeptRow:
    """A row that was kept.

    Attributes:
        file: the data set, as a value of `dataset`.
        rows: number of rows that the data set has now.
        messages: ids of the messages that the row was made of; the first one is the reply that it teaches.
    """

    id: str
    file: Path
    kind: Kind
    rows: int
    messages: tuple[str, ...]


@dataclass(frozen=True)
class KeptData:
    """A data set of kept rows; `file` is a value of `dataset`."""

    name: str
    file: Path
    kind: Kind
    rows: int


def keep_example(conversation: Conversation, reply: str, *, dataset: str = DEFAULT, text: str | None = None) -> KeptRow:
    """Keep a reply, or an edited text of it, with the conversation before it as an example for `sft`."""
    message = _reply(conversation, reply)
    path = conversation.path_to(reply)[:-1]
    answer = _edited(message, text)
    row = _row(conversation, path, answer)
    return _keep(conversation, dataset, "examples", row, (message,), text or "")


def keep_pair(  # noqa: PLR0913 - both replies, with their edited texts
    conversation: Conversation,
    chosen: str,
    rejected: str,
    *,
    dataset: str = DEFAULT,
    chosen_text: str | None = None,
    rejected_text: str | None = None,
) -> KeptRow:
    """Keep two replies to one question, or edited texts of them, as a preference pair (`dpo`, `rm`).

    Args:
        rejected: id of the worse reply, or the same id if `chosen_text` is an improved text of it.

    Raises:
        ConversationError: a reply is missing or empty, they answer different questions or are equal, the name cannot be
            one of a data set, the row is too large, or the conversation's file was replaced or deleted.
    """
    better, worse = _reply(conversation, chosen), _reply(conversation, rejected)
    if better.parent != worse.parent and not _same_question(conversation, better, worse):
        raise ConversationError("The two replies answer different questions. Choose two replies to one question.")
    answers = [_edited(better, chosen_text), _edited(worse, rejected_text)]
    if answers[0] == answers[1]:
        raise ConversationError("The better and the worse reply are identical. Edit one of them.")
    prompt = conversation.path_to(chosen)[:-1]
    row = _row(conversation, prompt)
    row |= dict(zip(("chosen", "rejected"), (as_row([one])["messages"][0] for one in answers), strict=True))
    return _keep(conversation, dataset, "pairs", row, (better, worse), chosen_text or "")


def keep_rating(conversation: Conversation, reply: str, *, good: bool, dataset: str = DEFAULT) -> KeptRow:
    """Keep a reply with a thumb up or down (`kto`) in place of an earlier rating, also in the conversation."""
    message = _reply(conversation, reply)
    row = _row(conversation, conversation.path_to(reply)[:-1], _edited(message, None)) | {"label": good}
    kept = _keep(conversation, dataset, "ratings", row, (message,))
    conversation.change(reply, rating="good" if good else "bad")
    return kept


def undo_kept(conversation: Conversation, reply: str, file: Path) -> None:
    """Remove the rows of a reply (of pairs, as the better one) from a data set, which is removed if empty."""
    conversation.refresh()
    conversation.path_to(reply)  # raises for a message that does not exist
    message = conversation.messages[reply]
    row_id = message.kept.get(file.name)
    if row_id is None:
        return
    if os.path.lexists(file):
        _remove(file, lambda origin: origin.get("id") == row_id or _is_of(origin, conversation, (reply,)))
    kept = {name: value for name, value in message.kept.items() if name != file.name}
    rating = {"rating": ""} if _kind(file) == "ratings" else {}
    corrected = {name: text for name, text in message.corrected.items() if name != file.name}
    conversation.change(reply, kept=kept, corrected=corrected, **rating)


def kept_datasets(home: Path | str | None = None) -> list[KeptData]:
    """List the data sets of kept rows, by name. Files and folders that cannot be read are left out."""
    folder = home_folder(home) / KEPT
    found = []
    with suppress(OSError):
        for name in sorted(list_folder(folder)):
            matched = _FILE.fullmatch(name)
            if matched is not None:
                with suppress(OSError):
                    found.append(KeptData(matched[1], folder / name, matched[2], _count(folder / name)))  # type: ignore[arg-type]
    return found


def kept_file(conversation: Conversation, dataset: str, kind: Kind) -> Path:
    """The file, perhaps missing, of a data set of kept rows, in the `LLF_HOME` that has the conversation.

    Raises:
        ConversationError: the name cannot be one of a data set.
    """
    if not NAME.fullmatch(dataset):
        raise ConversationError(
            f"{dataset!r} cannot be the name of a data set. Expected up to 80 letters, digits, spaces, '.', '_' and "
            "'-', the first one a letter or digit."
        )
    return conversation.file.parent.parent / KEPT / f"{dataset}-{kind}.jsonl"


def _reply(conversation: Conversation, name: str) -> ChatMessage:
    conversation.refresh()
    message = conversation.path_to(name)[-1]
    if message.role != "assistant":
        raise ConversationError(f"The message {name} is not a reply of a model. Choose a reply.")
    return message


def _edited(message: ChatMessage, text: str | None) -> dict[str, object]:
    """The reply as a message in OpenAI's format, with the edited text if there is one."""
    answer = message.openai() if text is None else {**message.openai(), "content": text}
    written = answer["content"] if isinstance(answer["content"], str) else message.text()
    if not written.strip() and not answer.get("tool_calls"):
        raise ConversationError("The reply is empty. Write its text before you keep it.")
    return answer


def _same_question(conversation: Conversation, one: ChatMessage, other: ChatMessage) -> bool:
    """Whether two replies answer the same question to several models, whose histories may differ."""
    if one.parent is None or other.parent is None:
        return False
    first, second = conversation.messages[one.parent], conversation.messages[other.parent]
    return bool(first.turn) and first.turn == second.turn


def _row(
    conversation: Conversation, path: Iterable[ChatMessage], answer: dict[str, object] | None = None
) -> dict[str, object]:
    messages = [*conversation.request_messages(path), *([] if answer is None else [answer])]
    tools = conversation.settings.get("tools")
    return as_row(messages, [one for one in tools if isinstance(one, dict)] if isinstance(tools, list) else ())


def _keep(  # noqa: PLR0913, PLR0917 - the row, and what is noted of it
    conversation: Conversation,
    dataset: str,
    kind: Kind,
    row: dict[str, object],
    replies: tuple[ChatMessage, ...],
    corrected: str = "",
) -> KeptRow:
    """Append a row in place of an earlier one of the same replies, and note it in the conversation."""
    path = kept_file(conversation, dataset, kind)
    ids = tuple(one.id for one in replies)
    origin = {
        "id": secrets.token_hex(8),
        "time": time.time(),
        "conversation": conversation.id,
        "messages": list(ids),
        "targets": [one.target for one in replies],
        # As text, so that all rows have columns of the same types.
        "sampling": json.dumps([one.sampling for one in replies]),
    }
    if (length := len(encode(row | {KEPT: origin}))) > MAX_LINE_BYTES:
        raise ConversationError(
            f"The conversation up to this reply has {length:,} bytes with its pictures. Expected at most "
            f"{MAX_LINE_BYTES:,}.",
            "Ask the question in a new conversation, or with smaller pictures.",
        )
    make_folder(path.parent)
    with _lock(path):
        found, left = _left(path, lambda old: _is_of(old, conversation, ids))
        if len(left) < len(found):  # at once, so that the earlier row is not lost if the disk is full
            _rewrite(path, [*left, encode(redact_nested(row | {KEPT: origin}, named=False))])
        else:
            append(path, row | {KEPT: origin}, named=False)
        rows = _count(path)
    noted = conversation.messages[ids[0]]
    others = {name: text for name, text in noted.corrected.items() if name != path.name}
    conversation.change(
        ids[0],
        kept=noted.kept | {path.name: origin["id"]},
        corrected=others | ({path.name: corrected} if corrected else {}),
    )
    return KeptRow(str(origin["id"]), path, kind, rows, ids)


def _is_of(origin: dict[str, object], conversation: Conversation, replies: tuple[str, ...]) -> bool:
    """Whether a row was made of replies of a conversation: of all, or of the first ones that it names."""
    messages = origin.get("messages")
    if origin.get("conversation") != conversation.id or not isinstance(messages, list):
        return False
    return messages[: len(replies)] == list(replies)


def _remove(file: Path, removed: Callable[[dict[str, object]], bool]) -> None:
    with _lock(file):
        found, left = _left(file, removed)
        if not left:
            file.unlink(missing_ok=True)
        elif len(left) < len(found):
            _rewrite(file, left)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with locked(path.with_name(f".{path.name}.lock")):
        yield


def _left(path: Path, removed: Callable[[dict[str, object]], bool]) -> tuple[list[bytes], list[bytes]]:
    """All lines of a data set, and those to keep. A line that is not a row, as after an edit by hand, is kept."""
    if not leads_to_file(path):
        return [], []
    lines = [line for line in read_bytes(path, HISTORY_BYTES).splitlines() if line.strip()]
    origins = [(parse(line) or {}).get(KEPT) for line in lines]
    left = [
        line for line, origin in zip(lines, origins, strict=True) if not (isinstance(origin, dict) and removed(origin))
    ]
    return lines, left


def _rewrite(path: Path, lines: Iterable[bytes]) -> None:
    replace_file(path, b"".join(line.rstrip(b"\n") + b"\n" for line in lines))


def _count(path: Path) -> int:
    return sum(1 for _ in records(path))


def _kind(path: Path) -> str:
    matched = _FILE.fullmatch(path.name)
    return matched[2] if matched is not None else ""
