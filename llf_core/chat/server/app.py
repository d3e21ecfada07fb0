"""The routes of the server."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llf_core.chat.request import Failed
from llf_core.chat.server.completions import (
    ChatCall,
    ChatReply,
    CompletionCall,
    CompletionReply,
    read_chat_call,
    read_completion_call,
)
from llf_core.chat.server.guard import Guard
from llf_core.chat.server.replies import CONTENT_TYPE, STOPPING, Metrics, Replies
from llf_core.chat.server.request_body import BODY_SECONDS, ApiError, Bodies, invalid, of_failure, one_of, shown
from llf_core.chat.server.score_call import (
    EmbeddingReply,
    evaluation_answer,
    read_embedding_call,
    read_evaluation_call,
    read_score_call,
    score_answer,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from llf_core.chat.server.guard import Access
    from llf_core.chat.server.reward_process import RewardProcess, Scores
    from llf_core.chat.server.score_call import ScoreCall
    from llf_core.chat.service import ChatService

    Endpoint = Callable[[Request], Awaitable[Response]]

ResultT = TypeVar("ResultT")
CLIENT_GONE = 499
"""Status in the metrics of a request whose client did not wait for the answer."""
_EVENT_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
_EVENT_TYPE = "text/event-stream"
_DONE = b"data: [DONE]\n\n"


class Server:
    """The application: routes, metrics and open calls; a client must send a body within `body_seconds`."""

    def __init__(
        self,
        service: ChatService,
        access: Access,
        *,
        rewards: Mapping[str, RewardProcess] | None = None,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._service = service
        self._rewards = dict(rewards or {})
        self._metrics = Metrics()
        self._calls: set[Replies] = set()
        self._bodies = Bodies(body_seconds)
        self._created = int(time.time())
        self._stopping = False
        handlers: dict[Any, Any] = {
            ApiError: _on_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_gone,
            Exception: _on_bug,
        }
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._show_metrics),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/score", self._score, methods=["POST"]),
            Route("/v1/score/evaluation", self._score_evaluation, methods=["POST"]),
        ]
        self._paths = {route.path for route in routes}
        inner = Starlette(routes=routes, exception_handlers=handlers)
        inner.router.redirect_slashes = False
        self.app: ASGIApp = self._counted(Guard(inner, access))

    def stop(self) -> None:
        """Refuse new calls, while a shutdown waits for the running ones."""
        self._stopping = True

    def cancel_all(self) -> None:
        """End all open calls with an error."""
        for call in list(self._calls):
            call.fail(STOPPING)

    @property
    def open_calls(self) -> int:
        """Number of calls that are being answered."""
        return len(self._calls)

    async def _health(self, _: Request) -> Response:
        if self._stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(name) for name in self._names()]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._names():
            raise self._not_served(name)
        return JSONResponse(self._card(name))

    async def _chat(self, request: Request) -> Response:
        call = await self._bodies.read(request, read_chat_call)
        self._check_model(call.model)
        if call.has_pictures and self._service.state(call.model).is_blind:
            raise invalid("messages", "a picture", f"text only: {call.model} reads no pictures")
        return await self._answer(request, call, ChatReply(call))

    async def _completions(self, request: Request) -> Response:
        call = await self._bodies.read(request, read_completion_call)
        self._check_model(call.model)
        return await self._answer(request, call, CompletionReply(call))

    async def _embeddings(self, request: Request) -> Response:
        call = await self._bodies.read(request, read_embedding_call)
        self._check_model(call.model)
        if self._stopping:
            raise of_failure(STOPPING)
        replies = Replies(self._service, call.model, call.requests, self._metrics, self._calls)
        return JSONResponse(await _unless_gone(request, _whole(replies, EmbeddingReply(call))))

    async def _score(self, request: Request) -> Response:
        call = await self._bodies.read(request, read_score_call)
        return JSONResponse(score_answer(call, await self._scores(request, call)))

    async def _score_evaluation(self, request: Request) -> Response:
        call = await self._bodies.read(request, read_evaluation_call)
        if len(self._rewards) == 1 and call.model not in self._names():  # LLaMA-Factory's clients send any name
            call = replace(call, model=next(iter(self._rewards)))
        return JSONResponse(evaluation_answer(call, await self._scores(request, call)))

    async def _scores(self, request: Request, call: ScoreCall) -> Scores:
        process = self._rewards.get(call.model)
        if process is None and call.model in self._service.targets:
            raise invalid("model", call.model, f"a reward model: {one_of(list(self._rewards)) or 'none is served'}")
        if process is None:
            raise self._not_served(call.model)
        if self._stopping:
            raise of_failure(STOPPING)
        future = process.submit(call.inputs, special=call.special, max_length=call.max_length)
        scores = await _unless_gone(request, asyncio.wrap_future(future))
        if isinstance(scores, Failed):
            raise of_failure(scores)
        return scores

    async def _answer(
        self, request: Request, call: ChatCall | CompletionCall, reply: ChatReply | CompletionReply
    ) -> Response:
        """Answer a call as a whole or as a stream."""
        if self._stopping:
            raise of_failure(STOPPING)
        replies = Replies(self._service, call.model, call.requests, self._metrics, self._calls)
        if call.stream:
            return _Stream(replies, reply)
        return JSONResponse(await _unless_gone(request, _whole(replies, reply)))

    def _names(self) -> list[str]:
        return [*self._service.targets, *self._rewards]

    def _card(self, name: str) -> dict[str, object]:
        if name in self._rewards:
            about = {"label": "reward model", "root": self._rewards[name].target}
            return {"id": name, "object": "model", "created": self._created, "owned_by": "llf"} | about
        target, state = self._service.targets[name], self._service.state(name)
        card = {"id": name, "object": "model", "created": self._created, "owned_by": "llf", "root": target.base}
        if state.context is not None:
            card["max_model_len"] = state.context
        return card | {"label": target.label, "state": state.phase}

    def _check_model(self, name: str) -> None:
        """Refuse the name of a model that does not generate text."""
        if name in self._rewards:
            raise invalid("model", name, "a model that generates text; send texts for a reward model to /v1/score")
        if name not in self._service.targets:
            raise self._not_served(name)

    def _not_served(self, name: str) -> ApiError:
        known = ", ".join(self._names())
        message = f"The model {shown(name)} is not served. Expected one of: {known}."
        return ApiError(404, message, param="model", code="model_not_found")

    def _counted(self, app: ASGIApp) -> ASGIApp:
        """Count the answers of an application."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            path = scope["path"]
            route = path if path in self._paths else "/v1/models/{name}" if path.startswith("/v1/models/") else "other"
            status = CLIENT_GONE

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                self._metrics.answered(route, status)

        return counted


class _Stream(Response):
    """A stream of the chunks of a call. It begins once a reply has begun, so that earlier errors have their status."""

    def __init__(self, replies: Replies, reply: ChatReply | CompletionReply) -> None:
        super().__init__(headers=_EVENT_HEADERS, media_type=_EVENT_TYPE)
        del self.headers["content-length"]
        self._replies, self._reply = replies, reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        work = asyncio.ensure_future(self._send_all(scope, receive, send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        async with self._replies as replies:
            async for batch in replies.batches():
                chunks: list[dict[str, object]] = []
                for number, event in batch:
                    new, cancels = self._reply.chunks(number, event)
                    chunks += new
                    if cancels:
                        replies.cancel(number)
                if self._reply.failure is not None:
                    error = of_failure(self._reply.failure)
                    if not begun:
                        await error.response()(scope, receive, send)
                        return
                    chunks.append(error.body())
                if not begun:
                    begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if chunks:
                    await send({"type": "http.response.body", "body": _event_bytes(chunks), "more_body": True})
                if self._reply.failure is not None:
                    break
        last = self._reply.last_chunk() if self._reply.failure is None else None
        end = _event_bytes([last] if last is not None else []) + _DONE
        await send({"type": "http.response.body", "body": end, "more_body": False})


def _event_bytes(chunks: Iterable[dict[str, Any]]) -> bytes:
    """JSON objects as server-sent events (`data: …` and an empty line), in UTF-8 with `?` for a lone surrogate."""
    return b"".join(b"data: " + _encoded(chunk) + b"\n\n" for chunk in chunks)


def _encoded(chunk: dict[str, object]) -> bytes:
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def _whole(replies: Replies, reply: ChatReply | CompletionReply | EmbeddingReply) -> dict[str, object]:
    """The answer to a call as a whole."""
    async with replies:
        async for batch in replies.batches():
            for number, event in batch:
                if reply.take(number, event):
                    replies.cancel(number)
            if reply.failure is not None:
                raise of_failure(reply.failure)
    return reply.whole()


async def _unless_gone(request: Request, work: Awaitable[ResultT]) -> ResultT:
    """The result of some work, which is cancelled once the client has gone."""
    gone = asyncio.ensure_future(_wait_until_gone(request.receive))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError, ApiError):
            await task


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _on_error(_: Request, error: ApiError) -> Response:
    return error.response()


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    path = shown(request.url.path)
    if error.status_code == 404:  # noqa: PLR2004 - HTTP's codes
        return ApiError(404, f"There is no {path} here. docs/serve.md lists the routes.").response()
    if error.status_code == 405:  # noqa: PLR2004 - HTTP's codes
        allowed = (error.headers or {}).get("Allow", "")
        return ApiError(
            405, f"{path} does not take {request.method}. Expected {allowed}.", headers=error.headers
        ).response()
    return ApiError(error.status_code, str(error.detail), headers=error.headers).response()


async def _on_gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody reads it


async def _on_bug(_: Request, __: Exception) -> Response:
    return ApiError(500, "The server failed; its terminal says why.", code="internal_error").response()
