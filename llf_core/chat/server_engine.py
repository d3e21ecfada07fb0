"""Engines that are a server of their own with OpenAI's API: vLLM and SGLang."""

from __future__ import annotations

import atexit
import http.client
import json
import queue
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any, ClassVar

from llf_core.chat.chat_engine import ChatEngine
from llf_core.chat.picture import with_checked_pictures
from llf_core.chat.request import Alternative, Failed, Finished, Piece, RequestError, Started, Token, ToolCallPiece
from llf_core.chat.target import loading_config
from llf_core.config.declarations.chat_engines import SGLangOptions, VLLMOptions
from llf_core.launch.supervisor import signal_name
from llf_core.models.errors import ModelError, first_line
from llf_core.models.model_source import resolve_trust_remote_code
from llf_core.models.resolve import resolve_model
from llf_core.runs.foreign_code import UntrustedCodeError
from llf_core.runs.formatting import without_escapes
from llf_core.runs.trust import TooMuchCodeError
from llf_core.untrusted import brief
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llf_core.chat.chat_engine import EngineSettings, EngineState
    from llf_core.chat.request import ChatRequest, Event
    from llf_core.config import RunConfig


HOST, BASE = "127.0.0.1", "base"
"""Where the server listens, and the name under which it serves the base model."""
POLL_SECONDS, CLOSE_SECONDS, ANSWER_SECONDS = 0.5, 10.0, 600.0
IMAGE_CHECK = "llf_core.chat.image_check"


class ServerEngine(ChatEngine):
    """Starts a server in a thread, since a download takes minutes, and sends it requests by HTTP.

    Attributes:
        load_path: path of the request that loads an adapter.
        key: the key of its requests, random for each start.

    Raises:
        ConfigError: the settings are invalid.
        PluginError: two installed packages declare the same name or key.
    """

    title: ClassVar[str] = "The server"
    load_path: ClassVar[str] = "/v1/load_lora_adapter"
    unload_path: ClassVar[str] = "/v1/unload_lora_adapter"

    def __init__(self, config: str, settings: EngineSettings, on_state: Callable[[EngineState], object]) -> None:
        super().__init__(config, settings, on_state)
        self._config = loading_config(config)
        self.key = secrets.token_urlsafe(32)
        self._adapters = _ServerAdapters(self._load, self._unload)
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._cancelled: set[int] = set()
        self._ready = threading.Event()
        self._last = time.monotonic()
        threading.Thread(target=self._serve, daemon=True, name="llf-chat-server").start()

    @cached_property
    def port(self) -> int:
        """Port on `HOST`, chosen when `command` first asks for it, since others could take it during a download."""
        with socket.socket() as found:
            found.bind((HOST, 0))
            return int(found.getsockname()[1])

    @abstractmethod
    def command(self, config: RunConfig) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment variables (secrets only in these) that start the server on `HOST` and `port`.

        The base model is named `BASE`. Called in the engine's thread; what it raises is why the engine failed.
        """

    def model_name(self, adapter: str | None) -> str:
        """The name in requests of a loaded adapter, or of the base model for None."""
        return adapter or BASE

    def load_adapter(self, name: str, folder: str) -> None:
        """See `ChatEngine.load_adapter`; one that the server refused is loaded again."""
        self._adapters.add(name, folder)

    def unload_adapter(self, name: str) -> None:
        """See `ChatEngine.unload_adapter`."""
        self._adapters.remove(name)

    def begin(self, number: int, request: ChatRequest) -> None:
        """See `ChatEngine.begin`; each reply has a thread, which reads the server's stream."""
        threading.Thread(target=self._reply, args=(number, request), daemon=True, name="llf-reply").start()

    def interrupt(self, number: int) -> None:
        """Close the connection of a reply, which ends it; one that waits is not sent. See `ChatEngine.interrupt`."""
        with self.lock:
            if number in self.running:  # else nothing would remove it
                self._cancelled.add(number)
            connection = self._connections.get(number)
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)  # the server ends a reply whose client is gone

    def close(self) -> None:
        """See `ChatEngine.close`."""
        with self.lock:
            self.closing = True
            process = self.process
        if process is None:  # `_start` will start none
            self.tell(replace(self.state, phase="stopped", progress=""))
            self.end_requests()
            return
        process.terminate()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def _serve(self) -> None:
        """Find the model, start the server, and report when it is ready, idle or has ended."""
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - the requests fail with the reason
            if not self.closing:
                self._tell_failure(error)
        if self.process is not None:
            self._watch(self.process)
        self._ready.set()
        self._adapters.close()
        self.end_requests()

    def _start(self) -> None:
        self.tell(replace(self.state, progress="Finding the model"))
        command, environment = self.command(self._config)
        own = self.settings.environment()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        with self.lock:
            if self.closing:
                return
            self._image_check = _start_image_check(self.config, own)
            try:
                self.process = subprocess.Popen(  # noqa: S603 - a command of the engine
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                    env=own | environment,
                )
            except BaseException:
                _end_image_check(self._image_check)
                raise
        atexit.register(self.process.terminate)  # it is no child that ends with its parent

    def _tell_failure(self, error: Exception) -> None:
        code: list[dict[str, object]] = []
        if isinstance(error, UntrustedCodeError):
            with suppress(TooMuchCodeError):
                code = error.shown
        known = isinstance(error, UserError | OSError)
        reason = str(error) if known else f"{self.title} cannot be started: {first_line(error)}"
        self.tell(replace(self.state, phase="failed", progress="", reason=reason, code=tuple(code)))

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self.tell(replace(self.state, progress=f"{self.title} is loading the model"))
        while process.poll() is None:
            if not self._ready.is_set():
                if self._image_check.poll() is not None and self._is_healthy():
                    sees = _may_read_images(self._image_check)
                    self.tell(replace(self.state, phase="ready", progress="", device="cuda", sees_images=sees))
                    self._last = time.monotonic()
                    self._ready.set()
            elif self._is_idle():
                self.close()
            time.sleep(POLL_SECONDS)
        code = process.wait()
        atexit.unregister(process.terminate)
        _end_image_check(self._image_check)
        if self.closing:
            self.tell(replace(self.state, phase="stopped", progress=""))
        else:
            self.tell(replace(self.state, phase="failed", progress="", reason=self._exit_message(code)))
        self._log.close()

    def _is_idle(self) -> bool:
        """Whether nothing has come for a while; then no request is taken any more."""
        seconds = self.settings.idle_seconds
        with self.lock:
            if self.running or self.closing or time.monotonic() - self._last <= seconds:
                return False
            self.closing = True
        reason = f"No question for {seconds / 60:g} min: {self.title} was stopped, and its memory is free."
        self._state = replace(self._state, reason=reason)
        return True

    def _exit_message(self, code: int) -> str:
        if code < 0:
            return f"{self.title} was ended by {signal_name(-code)}. Check that enough memory is free, and ask again."
        self._log.seek(0)
        lines = without_escapes(self._log.read().decode("utf-8", "replace")).strip().splitlines()
        return f"{self.title} failed: {brief(lines[-1]) if lines else f'exit code {code}'}"

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=POLL_SECONDS)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _load(self, name: str, folder: str) -> str:
        """Have the server load an adapter; returns why it does not, or an empty text."""
        from llf_core.models.adapter_folder import find_adapter

        try:
            path = find_adapter(folder, self._config)
            refused = self._post(self.load_path, {"lora_name": name, "lora_path": str(path)})
        except Exception as error:  # noqa: BLE001 - the requests that name it fail with the reason
            refused = str(error) if isinstance(error, UserError | OSError) else first_line(error)
        return f"{self.title} does not load the adapter: {refused}" if refused else ""

    def _unload(self, name: str) -> None:
        self._post(self.unload_path, {"lora_name": name})

    def _post(self, path: str, content: dict[str, object]) -> str:
        """Send a request once the server is ready; returns its error, or an empty text."""
        self._ready.wait()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("POST", path, json.dumps(content), self._headers())
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        finally:
            connection.close()
        return "" if answer.status == http.HTTPStatus.OK else error_message(text)

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    def _reply(self, number: int, request: ChatRequest) -> None:
        try:
            self._answer(number, request)
        except Exception as error:  # noqa: BLE001 - the reply would never end
            self.dispatch(number, Failed("invalid", f"{self.title} cannot be asked: {first_line(error)}"))
        finally:
            with self.lock:
                self._cancelled.discard(number)

    def _answer(self, number: int, request: ChatRequest) -> None:
        if request.embed:
            self.dispatch(number, Failed("invalid", f"{self.title} is started for replies, so it gives no embeddings."))
            return
        try:
            content = request_content(self.model_name(request.adapter), request)
        except RequestError as error:
            self.dispatch(number, Failed("invalid", str(error)))
            return
        self._send(number, request, content)

    def _send(self, number: int, request: ChatRequest, content: dict[str, object]) -> None:
        """Send a request once the server is ready, and read its stream."""
        begun = time.monotonic()
        self._ready.wait()
        if self.process is None or self.process.poll() is not None:
            return  # `_serve` ends all requests with the reason
        refused = self._wait_for_adapter(number, request.adapter)
        if refused:
            self.dispatch(number, Failed("model_gone", refused))
            return
        reply = ReplyReader(begun)
        if number in self._cancelled:
            self.dispatch(number, reply.finished("cancelled"))
            return
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_SECONDS)
        with self.lock:
            self._connections[number] = connection
        try:
            path = "/v1/completions" if request.prompt is not None else "/v1/chat/completions"
            connection.request("POST", path, json.dumps(content), self._headers())
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                self.dispatch(number, failure_of_status(answer.status, answer.read().decode("utf-8", "replace")))
                return
            self._read(number, answer, reply)
        except Exception as error:  # noqa: BLE001 - the reply fails with the reason
            if number not in self._cancelled:
                text = f"{self.title} broke the reply off: {first_line(error)}"
                self.dispatch(number, Failed("engine", text, "Ask again."))
        finally:
            connection.close()
            with self.lock:
                self._connections.pop(number, None)
                cancelled = number in self._cancelled
            self._last = time.monotonic()
            self.dispatch(number, reply.finished("cancelled" if cancelled else None))

    def _read(self, number: int, answer: http.client.HTTPResponse, reply: ReplyReader) -> None:
        """Pass on the events of a stream, until it ends or nobody wants them."""
        for chunk in reply_chunks(answer):
            if "error" in chunk:
                self.dispatch(number, failure_in_chunk(chunk))
            if number in self._cancelled:
                return
            for event in reply.read(chunk):
                self.dispatch(number, event)

    def _wait_for_adapter(self, number: int, name: str | None) -> str:
        """Why an adapter was refused, once that is known; empty if it can be used, or the reply was cancelled."""
        while name is not None and not self.closing and number not in self._cancelled:
            refused = self._adapters.refusal(name)
            if refused is not None:
                return refused
            time.sleep(POLL_SECONDS / 10)
        return ""


def _start_image_check(config: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Begin to find out whether the model reads pictures, while the server loads it."""
    check = subprocess.Popen(  # noqa: S603 - a module of this package
        [sys.executable, "-P", "-m", IMAGE_CHECK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )
    assert check.stdin is not None  # noqa: S101 - opened above
    with suppress(OSError), check.stdin:  # it has ended: the server decides
        check.stdin.write(config.encode())
    return check


def _may_read_images(check: subprocess.Popen[bytes]) -> bool:
    """Whether a model reads pictures; true if the check failed, so that the server reports what it refuses."""
    assert check.stdout is not None  # noqa: S101 - opened above
    return check.stdout.read().strip() != b"false"


def _end_image_check(check: subprocess.Popen[bytes]) -> None:
    assert check.stdout is not None  # noqa: S101 - opened above
    check.kill()
    check.wait()
    check.stdout.close()


@dataclass(eq=False)
class _Adapter:
    """An adapter that the server loads; for `refused` see `_ServerAdapters.refusal`."""

    folder: str
    refused: str | None = None


class _ServerAdapters:
    """Has a server load and unload adapters in a thread, in order, so that a new one never takes a loaded one's name.

    Args:
        load: called with name and folder; returns why the server does not load the adapter, or an empty text.
    """

    def __init__(self, load: Callable[[str, str], str], unload: Callable[[str], object]) -> None:
        self._load, self._unload = load, unload
        self._adapters: dict[str, _Adapter] = {}
        self._changes: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="llf-adapters").start()

    def add(self, name: str, folder: str) -> None:
        """Have an adapter (folder or hub id) loaded in place of one of the same name; one that was refused, again."""
        with self._lock:
            known = self._adapters.get(name)
            if known is not None and known.folder == folder and not known.refused:
                return
            adapter = self._adapters[name] = _Adapter(folder)
            if known is not None and known.folder != folder:
                self._changes.put(partial(self._unload, name))
            self._changes.put(partial(self._try, name, adapter))

    def remove(self, name: str) -> None:
        """Have an adapter unloaded, if it was added."""
        with self._lock:
            if self._adapters.pop(name, None) is not None:
                self._changes.put(partial(self._unload, name))

    def refusal(self, name: str) -> str | None:
        """Why an adapter cannot be used; empty if it can, None while it is being loaded."""
        with self._lock:
            found = self._adapters.get(name)
        return f"The adapter {name} was removed." if found is None else found.refused

    def close(self) -> None:
        """End the thread after the changes that wait."""
        self._changes.put(None)

    def _run(self) -> None:
        while (change := self._changes.get()) is not None:
            change()

    def _try(self, name: str, adapter: _Adapter) -> None:
        adapter.refused = self._load(name, adapter.folder)


def base_model(config: RunConfig, server: str, *, trust: bool) -> tuple[str, list[str]]:
    """Folder of the base model, and the argument that lets a server run its code, if the user has allowed it.

    Raises:
        ModelError: the model is missing, adapters are to be merged into it, or LLF would quantize it.
    """
    model = config.model
    if model.adapter_name_or_path:
        raise ModelError(
            f"{server} cannot merge {model.adapter_name_or_path[0]} into the base model. Export the merged model "
            "first, or remove infer_backend to use LLF's engine."
        )
    if model.quantization_bit is not None:
        raise ModelError(
            f"quantization_bit is {model.quantization_bit}, and {server} does not quantize as LLF does. Remove "
            "quantization_bit, name a quantized model, or remove infer_backend to use LLF's engine."
        )
    source = resolve_model(model.model_name_or_path, config)
    code = ["--trust-remote-code"] if resolve_trust_remote_code(source, config, trusted=trust) else []
    return str(source.path), code


def further_arguments(given: Mapping[str, object] | None) -> list[str]:
    """Arguments of a command from their names and values: `true` for one without a value, `false` and null for none."""
    found: list[str] = []
    for name, value in (given or {}).items():
        if value is None or value is False:
            continue
        found.append(f"--{name.replace('_', '-')}")
        if value is not True:
            found.append(value if isinstance(value, str) else json.dumps(value))
    return found


MAX_RANK = 256
"""Largest rank of an adapter that is loaded while the server runs."""

ALL_TOKENS = -1
"""`top_k` for all tokens. Without one, these servers use that of the model's `generation_config.json`."""

UNKNOWN_TOKEN = -1
"""Id of a token in log-probabilities, which OpenAI's API lacks."""


class ReplyReader:
    """Turns the chunks of a stream into events; `begun` is the `time.monotonic()` of the request."""

    def __init__(self, begun: float) -> None:
        self._begun, self._first = begun, 0.0
        self._started = False
        self._reason = "stop"
        self._usage: dict[str, Any] = {}

    def read(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Events of a chunk."""
        usage = chunk.get("usage")
        self._usage = usage if isinstance(usage, dict) else self._usage
        if not self._started:
            self._started = True
            yield Started(*self._prompt())
        for choice in chunk.get("choices", ())[:1]:
            delta = choice.get("delta") or {"content": choice.get("text")}
            self._reason = choice.get("finish_reason") or self._reason
            tokens = tuple(_tokens(choice.get("logprobs")))
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
            if reasoning:
                yield self._timed(Piece(reasoning, "reasoning", tokens))
            if delta.get("content") or (tokens and not reasoning):  # text that is held back comes with later tokens
                yield self._timed(Piece(delta.get("content") or "", "content", () if reasoning else tokens))
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                yield self._timed(
                    ToolCallPiece(
                        call.get("index", 0),
                        function.get("arguments") or "",
                        call.get("id") or "",
                        function.get("name") or "",
                    )
                )

    def finished(self, reason: str | None) -> Finished:
        """The last event; `reason` replaces the server's."""
        named = reason or (self._reason if self._reason in {"stop", "length", "tool_calls"} else "stop")
        prompt, cached = self._prompt()
        now = time.monotonic()
        return Finished(
            named,  # type: ignore[arg-type]  # one of the four
            prompt,
            _count(self._usage, "completion_tokens"),
            cached,
            (self._first or now) - self._begun,
            now - self._begun,
        )

    def _timed(self, event: Event) -> Event:
        self._first = self._first or time.monotonic()
        return event

    def _prompt(self) -> tuple[int, int]:
        return _count(self._usage, "prompt_tokens"), _count(self._usage.get("prompt_tokens_details"), "cached_tokens")


class SGLangEngine(ServerEngine):
    """A running `python -m sglang.launch_server`.

    It listens on loopback without a key, since SGLang takes its key as an argument, which other users can read. Source:
    SGLang's documentation, *Server arguments* and *LoRA serving*.
    """

    title: ClassVar[str] = "SGLang"
    load_path: ClassVar[str] = "/load_lora_adapter"
    unload_path: ClassVar[str] = "/unload_lora_adapter"

    def command(self, config: RunConfig) -> tuple[list[str], dict[str, str]]:
        """See `ServerEngine.command`. Adapters can be loaded while it runs."""
        options = config.options(SGLangOptions)
        folder, code = base_model(config, self.title, trust=self.settings.trust)
        command = [sys.executable, "-P", "-m", "sglang.launch_server", "--model-path", folder]
        command += ["--host", HOST, "--port", str(self.port), "--served-model-name", BASE]
        command += ["--dtype", config.chat.infer_dtype, "--context-length", str(options.sglang_maxlen)]
        command += ["--mem-fraction-static", str(options.sglang_mem_fraction)]
        command += ["--tp-size", str(max(1, options.sglang_tp_size))]
        command += ["--enable-lora", "--max-lora-rank", str(MAX_RANK), "--lora-target-modules", "all"]
        command += ["--lora-backend", options.sglang_lora_backend]
        command += code
        command += further_arguments(options.sglang_config)
        return command, {}

    def model_name(self, adapter: str | None) -> str:
        """The name of a model in SGLang's notation, `base:ADAPTER`, see `ServerEngine.model_name`."""
        return BASE if adapter is None else f"{BASE}:{adapter}"


class VLLMEngine(ServerEngine):
    """A running `vllm serve`. Source: vLLM's documentation, *Engine arguments* and *LoRA adapters*."""

    title: ClassVar[str] = "vLLM"

    def command(self, config: RunConfig) -> tuple[list[str], dict[str, str]]:
        """See `ServerEngine.command`. Adapters can be loaded while it runs."""
        options = config.options(VLLMOptions)
        folder, code = base_model(config, self.title, trust=self.settings.trust)
        command = [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve", folder]
        command += ["--host", HOST, "--port", str(self.port), "--served-model-name", BASE]
        command += ["--dtype", config.chat.infer_dtype, "--max-model-len", str(options.vllm_maxlen)]
        command += ["--gpu-memory-utilization", str(options.vllm_gpu_util)]
        command += ["--enable-lora", "--max-lora-rank", str(options.vllm_max_lora_rank)]
        command += ["--enforce-eager"] if options.vllm_enforce_eager else []
        command += code
        command += further_arguments(options.vllm_config)
        return command, {"VLLM_API_KEY": self.key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


def request_content(model: str, request: ChatRequest) -> dict[str, Any]:
    """A request to a model or adapter in OpenAI's format, with the further parameters that vLLM and SGLang share."""
    sampling = request.sampling
    content: dict[str, object] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or ALL_TOKENS,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
    }
    if request.prompt is not None:
        content |= {"prompt": request.prompt, "logprobs": request.top_logprobs if request.logprobs else None}
    else:
        content |= {"messages": with_checked_pictures(request.messages), "tools": list(request.tools) or None}
        content |= {"chat_template_kwargs": request.template_options or None}
        if request.logprobs:
            content |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.continue_last:
            content |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.json_schema is not None:
        content["response_format"] = (
            {"type": "json_schema", "json_schema": {"name": "reply", "schema": request.json_schema}}
            if request.json_schema
            else {"type": "json_object"}
        )
    return {name: value for name, value in content.items() if value is not None}


def _count(usage: object, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else 0


def _tokens(logprobs: dict[str, Any] | None) -> Iterator[Token]:
    """Tokens of a chunk with their log-probabilities, in either of OpenAI's formats."""
    if not logprobs:
        return
    for one in logprobs.get("content") or ():
        top = tuple(Alternative(UNKNOWN_TOKEN, other["token"], other["logprob"]) for other in one["top_logprobs"])
        yield Token(UNKNOWN_TOKEN, one["token"], one["logprob"], top)
    for place, text in enumerate(logprobs.get("tokens") or ()):
        listed = (logprobs.get("top_logprobs") or [None] * (place + 1))[place] or {}
        top = tuple(Alternative(UNKNOWN_TOKEN, other, value) for other, value in listed.items())
        yield Token(UNKNOWN_TOKEN, text, logprobs["token_logprobs"][place], top)


def reply_chunks(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """JSON objects of the server-sent events in a response of status 200.

    Raises:
        ValueError: one is not a JSON object, or the last one is missing.
    """
    for line in response:
        name, _, data = line.partition(b":")
        if name != b"data":
            continue
        if data.strip() == b"[DONE]":
            return
        chunk = _object(data)
        if chunk is None:
            raise ValueError(f"It sent {brief(data.decode('utf-8', 'replace').strip())}")
        yield chunk
    raise ValueError("Its stream ended early")


def _object(text: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def failure_in_chunk(chunk: dict[str, Any]) -> Failed:
    """The failure in a chunk with the key `error`, whose `code` is a status."""
    code = chunk["error"].get("code") if isinstance(chunk["error"], dict) else None
    return failure_of_status(
        code if isinstance(code, int) else http.HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps(chunk)
    )


def failure_of_status(status: int, text: str) -> Failed:
    """The failure of a response with an error status."""
    message = error_message(text)
    if "context length" in message or "maximum context" in message:
        return Failed("too_long", message)
    kinds = {400: "invalid", 404: "model_gone", 422: "invalid", 429: "busy"}
    return Failed(kinds.get(status, "engine"), message)  # type: ignore[arg-type]  # one of the kinds


def error_message(text: str) -> str:
    """The message of an error in any of the formats of servers, JSON or not."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return brief(text)
    error = content.get("error", content) if isinstance(content, dict) else content
    named = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return brief(str(named or text))
