"""The process that prepares the prompts and schemas of large requests, each in a child with limits of time and memory.

`Preparer` starts it as `python -m llf_core.chat.preparation_worker`. It loads no weights and has one thread, so that it
can fork. The first line is `config` and `template`, as for `worker_process`; then each request is two lines: `id`,
`adapter` (folder or null), `context` (or null) and `has_schema`, and the request. It writes one line for each: `id`,
and `token_ids` and `rendered`, `failed`, or `ended` with the signal or exit code of the child.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import selectors
import signal
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import psutil

from llf_core.chat.json_grammar import Grammars
from llf_core.chat.prompt import PromptForm, prepare, prompt_form, too_long
from llf_core.chat.request import ChatRequest, RequestError
from llf_core.chat.target import apply_template, find_adapter_files, loading_config
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.errors import first_line
from llf_core.models.resolve import resolve_model
from llf_core.models.tokenizer import load_processor, load_tokenizer
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_SECONDS, SCHEMA_SECONDS = 10.0, 0.5
"""CPU seconds for a prompt, and for a schema."""
TEXT_BYTES, SCHEMA_BYTES = 1 << 30, 256 << 20
"""Memory that a prompt may take, and a schema."""
WALL_SECONDS = 120.0
"""Time after which a child is killed, whatever it waits for."""
NICENESS = 10
"""Preparation leaves the processor to the engine."""
NO_MEMORY = 3
"""Exit code of a child that is out of memory."""
MAX_TOKENS = 1 << 20
"""Maximum number of tokens for a model without a context length."""


@dataclass
class _Child:
    id: int
    pid: int
    begun: float
    answer: bytearray


class _Worker:
    def __init__(self, start: dict[str, Any], output: BinaryIO) -> None:
        self._config = loading_config(start["config"])
        source = resolve_model(self._config.model.model_name_or_path, self._config)
        tokenizer = load_tokenizer(source, self._config)
        apply_template(self._config, start["template"], tokenizer)
        self._processor = load_processor(source, self._config, tokenizer)
        self._tokenizers: dict[str | None, PreTrainedTokenizerBase] = {None: tokenizer}
        self._forms: dict[str | None, PromptForm] = {}
        self._grammars = Grammars(tokenizer, [], len(tokenizer))
        self._output = output
        self._children: dict[int, _Child] = {}
        self._poll = selectors.DefaultSelector()

    def run(self) -> None:
        os.nice(NICENESS)
        self._poll.register(0, selectors.EVENT_READ)
        lines = bytearray()
        while True:
            for key, _ in self._poll.select(1.0):
                part = os.read(key.fd, 1 << 20)
                if key.fd in self._children:
                    self._read(key.fd, part)
                elif not part:
                    return
                else:
                    lines += part
                    while part.count(b"\n") and lines.count(b"\n") >= 2:  # noqa: PLR2004 - a head and a request
                        head, body, lines = lines.split(b"\n", 2)
                        self._fork(json.loads(head), bytes(body))
            for one in self._children.values():
                if time.monotonic() - one.begun > WALL_SECONDS:
                    os.kill(one.pid, signal.SIGKILL)

    def end(self) -> None:
        for one in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)

    def _fork(self, head: dict[str, Any], body: bytes) -> None:
        try:
            tokenizer, form = self._renderer(head["adapter"])
            if head["has_schema"]:
                self._grammars.load()
        except (UserError, RequestError, OSError) as error:
            kind = "invalid" if isinstance(error, RequestError) else "engine"
            self._write({"id": head["id"], "failed": {"kind": kind, "message": str(error)}})
            return
        reading, writing = os.pipe()
        gc.freeze()
        pid = os.fork()
        if not pid:
            os.close(reading)
            self._prepare(head, body, tokenizer, form, writing)
        os.close(writing)
        self._children[reading] = _Child(head["id"], pid, time.monotonic(), bytearray())
        self._poll.register(reading, selectors.EVENT_READ)

    def _read(self, reading: int, part: bytes) -> None:
        child = self._children[reading]
        child.answer += part
        if part:
            return
        self._poll.unregister(reading)
        os.close(reading)
        del self._children[reading]
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        if code:
            self._write({"id": child.id, "ended": code})
        else:
            self._output.write(child.answer + b"\n")
            self._output.flush()

    def _renderer(self, adapter: str | None) -> tuple[PreTrainedTokenizerBase, PromptForm]:
        """The tokenizer of an adapter with its template; loaded once, before the first child that needs it."""
        if adapter not in self._tokenizers:
            assert adapter is not None  # noqa: S101 - the base's is there
            self._tokenizers[adapter] = find_adapter_files(adapter, self._config)[1] or self._tokenizers[None]
        if adapter not in self._forms:
            self._forms[adapter] = prompt_form(self._tokenizers[adapter], self._processor)
        return self._tokenizers[adapter], self._forms[adapter]

    def _prepare(
        self, head: dict[str, Any], body: bytes, tokenizer: PreTrainedTokenizerBase, form: PromptForm, writing: int
    ) -> NoReturn:
        """Prepare a request in a child, and end it."""
        code = 1
        try:
            answer = {"id": head["id"]} | self._prepared(body, tokenizer, form, head["context"])
            with open(writing, "wb") as pipe:
                pipe.write(json.dumps(answer).encode())
            code = 0
        except MemoryError:
            code = NO_MEMORY
        finally:
            os._exit(code)

    def _prepared(
        self, body: bytes, tokenizer: PreTrainedTokenizerBase, form: PromptForm, context: int | None
    ) -> dict[str, Any]:
        try:
            with panics_as_errors():
                _limit(TEXT_SECONDS, TEXT_BYTES)
                request = prepare(ChatRequest.read(json.loads(body)), tokenizer, form)
                most = MAX_TOKENS if context is None else context
                if len(request.token_ids) >= most:
                    return {"failed": asdict(too_long(len(request.token_ids), most))}
                if request.json_schema is not None:
                    _limit(SCHEMA_SECONDS, SCHEMA_BYTES)
                    self._grammars.try_out(request.json_schema)
        except (RequestError, TypeError, ValueError) as error:
            return {"failed": {"kind": "invalid", "message": str(error)}}
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - such as a panic of a library, which says why
            return {"failed": {"kind": "engine", "message": f"The prompt cannot be prepared: {first_line(error)}"}}
        return {"token_ids": request.token_ids, "rendered": request.rendered}

    def _write(self, message: dict[str, Any]) -> None:
        self._output.write(json.dumps(message).encode() + b"\n")
        self._output.flush()


def _limit(seconds: float, size: int) -> None:
    """Let the system end this process when it exceeds some seconds of computing or some memory."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + size, resource.RLIM_INFINITY))


def main() -> None:
    """Load the tokenizer of the model that the first line names, and prepare requests until the input ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would be missing in a child
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with redirect_stdout(sys.stderr), panics_as_errors():
        line = bytearray()
        while not line.endswith(b"\n"):
            if not (part := os.read(0, 1)):
                return
            line += part
        worker = _Worker(json.loads(line), output)
        try:
            worker.run()
        finally:
            worker.end()


if __name__ == "__main__":
    main()
