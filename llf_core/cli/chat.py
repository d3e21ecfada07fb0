"""`llf chat`, `llf chats` and `llf serve`: models in a terminal, their conversations, and behind OpenAI's API."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from llf_core.cli.terminal import Json, Trust, UsageError, err, in_a_sentence, out, print_json
from llf_core.install_command import install_command
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.chat.conversation import Conversation
    from llf_core.chat.server.guard import Access
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
    from llf_core.cli.chat_session import WaitingPictures

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


MISSING = "The server needs packages that are not installed: {}. Install them with: {}"


def serve(  # noqa: PLR0913, PLR0917 - one parameter an option
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="Run id, RUN@STEP, RUN@latest, `last`, a folder or hub id of a model or adapter.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TARGET", help="Serve a target under a name; can be repeated.")
    ] = None,
    reward_model: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]TARGET", help="Reward model whose scores are served; can be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than loopback need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.", min=0, max=65535)] = 8000,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(metavar="VAR", help="Environment variable with an API key; can be repeated."),
    ] = None,
    generate_key: Annotated[bool, typer.Option(help="Generate an API key and print it once.")] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may use the server (CORS); can be repeated."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this machine in the header Host; can be repeated."),
    ] = None,
    idle_seconds: Annotated[
        float, typer.Option(help="Seconds without a request after which a model is unloaded.", min=1)
    ] = 600.0,
    max_waiting: Annotated[int, typer.Option(help="Maximum number of requests in the queue of a model.", min=1)] = 256,
    grace_seconds: Annotated[
        float, typer.Option(help="Seconds that running replies have after Ctrl-C or SIGTERM.", min=0, max=3600)
    ] = 30.0,
    trust: Trust = False,
) -> None:
    """Serve models, runs and adapters to any OpenAI client. Adapters of one base model share its weights."""
    try:
        from llf_core.chat.server.app import Server
        from llf_core.chat.server.listen import make_server, open_socket
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llf"):
            raise
        raise UserError(MISSING.format(error.name, install_command("serve"))) from None
    from llf_core.chat.server.reward_process import RewardProcess
    from llf_core.chat.service import ChatService

    access, generated = _access(host, allow_host, api_key_env, allow_origin, generate_key)
    named = _named(targets, name, reward_model)
    rewards = _reward_models(reward_model or [])
    with in_a_sentence():
        listener = open_socket(host, port)
        service = ChatService(idle_seconds=idle_seconds, max_waiting=max_waiting, trust=trust)
        processes = {
            one: RewardProcess(target, idle_seconds=idle_seconds, max_waiting=max_waiting, trust=trust)
            for one, target in rewards.items()
        }
        try:
            for one, target in named:
                service.add(target, one)
            _check_rewards(service, rewards)
            for one in service.targets:
                service.start(one)
            server = Server(service, access, rewards=processes)
            shown_port = listener.getsockname()[1]
            make_server(
                server,
                grace_seconds=grace_seconds,
                started=lambda: _print_start(service, host, shown_port, generated),
            ).run([listener])
        finally:
            listener.close()
            service.close()
            for process in processes.values():
                process.close()


def _access(
    host: str, hosts: list[str] | None, variables: list[str] | None, origins: list[str] | None, generate: bool
) -> "tuple[Access, str | None]":
    """Who may use the server, and the generated key."""
    from llf_core.chat.server.guard import ANY_ORIGIN, Access, is_loopback, keys_of, new_key

    exposed = not is_loopback(host)
    keys = keys_of(variables or [], exposed=exposed)
    generated = new_key() if generate else None
    if generated is not None:
        keys.append(generated)
    if exposed and not keys:
        raise UsageError(
            f"Other machines reach {host}, and there is no API key.",
            "Name an environment variable with one (--api-key-env), generate one (--generate-key), or serve on "
            "127.0.0.1.",
        )
    if ANY_ORIGIN in (origins or []) and not keys:
        raise UsageError("--allow-origin '*' lets every web page use the server.", "Add an API key, or name origins.")
    return Access(host, tuple(hosts or ()), tuple(keys), tuple(origins or ())), generated


def _reward_models(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, target = _reward_model(one)
        if name in found:
            raise UsageError(f"Two reward models are called {name[:200]!r}.", "Name them: NAME=TARGET.")
        found[name] = target
    return found


def _reward_model(given: str) -> tuple[str, str]:
    name, sign, target = given.partition("=")
    if not sign:
        name, target = given.rstrip("/").rpartition("/")[2], given
    if not name.strip() or not target.strip():
        raise UsageError(f"--reward-model {given[:200]!r} is not TARGET or NAME=TARGET.")
    return name, target


def _check_rewards(service: "ChatService", rewards: dict[str, str]) -> None:
    """Find the reward models, without loading them."""
    if not rewards:
        return
    from llf_core.config import RunConfig
    from llf_core.models.reward_model_files import find_reward_model

    config = RunConfig.load({"dataset": "unused", "finetuning_type": "lora"})
    for name, target in rewards.items():
        if name in service.targets:
            raise UsageError(f"Two models are called {name[:200]!r}.", "Name the reward model: NAME=TARGET.")
        find_reward_model(target, config)


def _named(
    targets: list[str] | None, names: list[str] | None, rewards: list[str] | None
) -> list[tuple[str | None, str]]:
    """Targets with their names; None for a target's own."""
    named: list[tuple[str | None, str]] = []
    for one in names or []:
        name, sign, target = one.partition("=")
        if not sign or not name.strip() or not target.strip():
            raise UsageError(f"--name {one[:200]!r} is not NAME=TARGET.")
        if name in {known for known, _ in named}:
            raise UsageError(f"--name {name[:200]!r} is given twice.", "Expected a name for one target.")
        named.append((name, target))
    named += [(None, target) for target in targets or []]
    if not named and not rewards:
        raise UsageError("There is nothing to serve.", "Name a run, a model or an adapter.")
    return named


def _print_start(service: "ChatService", host: str, port: int, generated: str | None) -> None:
    shown_host = f"[{host}]" if ":" in host else host
    for name, target in service.targets.items():
        err.print(f"{escape(name)}: {escape(target.label)}, base {escape(target.base)}")
    if generated is not None:
        err.print(f"API key, shown only now: {generated}")
    err.print(f"Serving at http://{shown_host}:{port}/v1. Ctrl-C ends it.")
