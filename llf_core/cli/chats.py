"""`llf chats list`, `delete` and `restore`: the conversations of `LLF_HOME`."""

from typing import Annotated

import typer

from llf_core.cli.errors import in_a_sentence
from llf_core.cli.parameters import Json
from llf_core.cli.terminal import out, print_json

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
