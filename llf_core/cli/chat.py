"""`llf chat`: talk to models, runs and adapters in a terminal; `llf chats …`: the conversations of `LLF_HOME`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import Json, Trust
from llf_core.cli.terminal import err, out, print_json
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.conversation import Conversation
    from llf_core.chat.service import ChatService
    from llf_core.cli.chat_session import ChatSession

MAX_INPUT = 4 << 20
"""Maximum characters of a message on stdin."""


def chat(  # noqa: PLR0913, PLR0917 - one parameter an option
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run id, RUN@STEP, RUN@latest, RUN@base, `last`, a folder or hub id of a model or adapter.",
        ),
    ],
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this and exit; also read from stdin, if that is a pipe.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Picture for the first question; may be given repeatedly.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    temperature: Annotated[float, typer.Option(help="Temperature of sampling; 0 decodes greedily.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling, in (0, 1].")] = 1.0,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum tokens of a reply.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of sampling.")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--continue", metavar="CONVERSATION", help="Continue a conversation: its id, or `last`."),
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Talk to models, runs and adapters. Several answer in turn; adapters of one base model share its weights.

    /help lists the commands. Ctrl-C stops a reply, a second one leaves. With --message or a pipe, the command prints
    the replies and stores no conversation.
    """
    from llf_core.chat.picture import question_content
    from llf_core.chat.request import ChatSampling, RequestError
    from llf_core.chat.service import ChatService
    from llf_core.cli.chat_pictures import WaitingPictures

    try:
        sampling = ChatSampling(temperature=temperature, top_p=top_p, seed=seed)
    except RequestError as error:
        raise UsageError(str(error)) from None
    if message is None and not sys.stdin.isatty():
        message = _piped()
    if message is not None and not message.strip():
        raise UsageError("The message is empty.", "Name one with --message, or write one to stdin.")
    if message is not None and resume is not None:
        raise UsageError("--continue and a message exclude each other.", "A message is answered and not kept.")
    if as_json and message is None:
        raise UsageError("--json needs a message.", "Name one with --message, or write one to stdin.")
    with in_a_sentence():
        pictures = WaitingPictures()
        for one in image or ():
            pictures.add(one)
        service = ChatService(trust=trust)
        try:
            for one in targets:
                service.add(one)
            names = list(service.targets)
            options: dict[str, object] = {"sampling": sampling, "max_tokens": max_tokens}
            if message is not None:
                _once(service, names, question_content(message, pictures.parts), system, options, as_json=as_json)
                return
            _talk(service, names, system, resume, options | {"pictures": pictures})
        finally:
            service.close()


def _piped() -> str:
    try:
        text = sys.stdin.read(MAX_INPUT + 1)
    except UnicodeDecodeError:
        raise UsageError(f"The message on stdin is not text in {sys.stdin.encoding}.", "Convert it.") from None
    if len(text) > MAX_INPUT:
        raise UsageError(f"The message on stdin has more than {MAX_INPUT:,} characters.")
    return text.rstrip("\n")


def _once(  # noqa: PLR0913 - what a request needs
    service: "ChatService",
    names: list[str],
    message: "str | list[dict[str, Any]]",
    system: str | None,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    import queue

    from llf_core.chat.request import ChatRequest
    from llf_core.cli.chat_session import ReplyPrinter, collect
    from llf_core.cli.terminal import out

    head = [{"role": "system", "content": system}] if system else []
    request = ChatRequest((*head, {"role": "user", "content": message}), **options)
    replies = []
    for name in names:
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        service.submit(name, request, events.put)
        printer = ReplyPrinter()
        if len(names) > 1 and not as_json:
            out.print(f"[bold]{escape(name)}[/bold]")
        collect(events, printer.reply.take if as_json else printer.take, _progress(service, name))
        if not as_json:
            printer.end()
        if (failed := printer.reply.failed) is not None:
            raise UserError(failed.message, failed.what_to_do)
        replies.append({"target": name, **printer.reply.message_fields()})
    if as_json:
        print_json({"replies": replies, "sampling": asdict(options["sampling"])})


def _progress(service: "ChatService", name: str) -> "Callable[[], str]":
    return lambda: service.state(name).progress


def _talk(
    service: "ChatService", names: list[str], system: str | None, resume: str | None, options: dict[str, Any]
) -> None:
    from llf_core.chat.conversation import new_conversation
    from llf_core.cli.chat_session import ChatSession

    _import_readline()
    for name in names:
        service.start(name)
    session = ChatSession(service, names, new_conversation, conversation=_continued(resume), **options)
    if system is not None:
        session.conversation.set(system=system)
    for name in names:
        err.print(f"{escape(name)}: {escape(service.targets[name].label)}")
    err.print("/help lists the commands.")
    session.run(input)
    _say_where(session)


def _say_where(session: "ChatSession") -> None:
    if session.conversation.messages:
        err.print(f"Kept as {session.conversation.id}. To continue it: --continue {session.conversation.id}")


def _continued(resume: str | None) -> "Conversation | None":
    from llf_core.chat.conversation import open_conversation
    from llf_core.chat.conversation_list import list_conversations

    if resume is None:
        return None
    if resume == "last":
        _, rows = list_conversations(limit=1)
        if not rows:
            raise UsageError("There is no conversation yet.", "Leave out --continue.")
        resume = rows[0].id
    return open_conversation(resume)


def _import_readline() -> None:
    """Make `input` edit lines and remember them, where Python has readline; importing it changes `input` so."""
    from contextlib import suppress

    with suppress(ImportError):
        import readline  # noqa: F401 - importing it is what does it


ConversationId = Annotated[str, typer.Argument(metavar="CONVERSATION", help="Id of a conversation; `llf chats list`.")]


def chats_list(
    limit: Annotated[int, typer.Option(help="Maximum number of conversations, last changed first.", min=1)] = 20,
    offset: Annotated[int, typer.Option(help="Skip this many conversations.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """List conversations, last changed first: id, number of messages, models, title.

    `llf chat TARGET --continue ID` continues one. One whose file cannot be read is counted, and not listed.
    """
    from llf_core.chat.conversation_list import list_conversations
    from llf_core.config.number_format import with_unit
    from llf_core.untrusted import visible

    with in_a_sentence():
        total, rows = list_conversations(offset=offset, limit=limit)
    if as_json:
        print_json({"total": total, "conversations": [row.json() for row in rows]})
        return
    for row in rows:
        count = with_unit(row.messages, "message")
        about = ", ".join([count if row.complete else f"more than {count}", *row.targets])
        out.print(f"{row.id}  {visible(about)}\n  {visible(row.title)}", markup=False, highlight=False)
    unread = min(limit, max(0, total - offset)) - len(rows)
    left_out = f"; {unread:,} cannot be read" if unread else ""
    out.print(f"[dim]{len(rows)} of {with_unit(total, 'conversation')}{left_out}[/dim]")


def chats_delete(conversation: ConversationId) -> None:
    """Move a conversation to the bin. `llf chats restore` restores it, until `llf runs clean` empties the bin."""
    from llf_core.chat.conversation_list import delete_conversation

    with in_a_sentence():
        binned = delete_conversation(conversation).stem
    renamed = "" if binned == conversation else f" as {binned}, since the bin has another one with its id"
    out.print(f"{conversation} is in the bin{renamed}. Restore it with: llf chats restore {binned}")


def chats_restore(conversation: ConversationId) -> None:
    """Restore a conversation from the bin, to continue it."""
    from llf_core.chat.conversation_list import restore_conversation

    with in_a_sentence():
        restore_conversation(conversation)
    out.print(f"{conversation} is restored.")
