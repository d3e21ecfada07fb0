"""The messages of a page to its views, in a real kernel with subshells."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import start_new_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking import BlockingKernelClient

PATIENCE = 120.0  # seconds
VIEW = """
from llf_widgets.front_end import FrontEnd

class View(FrontEnd):
    _esm = "export default {}"

    def __init__(self):
        super().__init__()
        self.on_msg(lambda _widget, content, _buffers: self.send({"received": content["number"]}))

view = View()
print(view.model_id)
"""


@pytest.fixture
def kernel() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel(startup_timeout=PATIENCE, kernel_name="python3")
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_message_is_handled_after_the_subshell_of_the_last_one_is_gone(kernel: BlockingKernelClient) -> None:
    view = open_view(kernel)
    first = create_subshell(kernel)
    send(kernel, view, 1, first)
    assert received(kernel) == 1
    ask(kernel, "delete_subshell_request", {"subshell_id": first})
    send(kernel, view, 2, create_subshell(kernel))
    assert received(kernel) == 2


def test_a_message_to_a_subshell_does_not_wait_for_the_running_cell(kernel: BlockingKernelClient) -> None:
    view = open_view(kernel)
    own = create_subshell(kernel)
    kernel.execute("import time; print('asleep'); time.sleep(300)")
    assert until(kernel, lambda message: message["content"].get("text")) == "asleep\n"
    send(kernel, view, 1, own)
    assert received(kernel) == 1


def open_view(client: BlockingKernelClient) -> str:
    """Creates a view, and returns the id of its comm."""
    client.execute(VIEW)
    return until(client, lambda message: message["content"].get("text")).strip()


def create_subshell(client: BlockingKernelClient) -> str:
    return ask(client, "create_subshell_request", {})["subshell_id"]


def ask(client: BlockingKernelClient, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Sends a request on the control channel; returns the content of the reply."""
    request = client.session.msg(kind, content)
    client.control_channel.send(request)
    while True:
        reply = client.get_control_msg(timeout=PATIENCE)
        if reply["parent_header"]["msg_id"] == request["header"]["msg_id"]:
            assert reply["content"]["status"] == "ok", reply
            return reply["content"]


def send(client: BlockingKernelClient, view: str, number: int, subshell: str) -> None:
    """Sends a custom message to a view, as a page does that uses subshells for comms."""
    content = {"comm_id": view, "data": {"method": "custom", "content": {"number": number}}}
    message = client.session.msg("comm_msg", content)
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)


def received(client: BlockingKernelClient) -> int:
    return until(client, lambda message: message["content"].get("data", {}).get("content", {}).get("received"))


def until(client: BlockingKernelClient, find: Any) -> Any:
    """The first value that is found in a message of the kernel."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = find(client.get_iopub_msg(timeout=max(0.0, end - time.monotonic())))
        except queue.Empty:
            pytest.fail(f"The kernel did not answer within {PATIENCE:g} s.")
        if found is not None:
            return found
