"""The child process: a model on Transformers' continuous batching, behind OpenAI's routes.

It runs in the engine's own environment and imports nothing of Paddock. Transformers' own server
(`transformers serve`) has one sampling setting for all requests, and no stop strings, logprobs,
penalties, seeds, token lists as prompts or key; so the routes and the sampling are ours, and the
loading, the cache, the scheduling and the kernels are Transformers'. What computes is a process of
its own, `worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import uvicorn
import uvloop
from asked import Ask, Sampling, Token
from calls import Expected, Parser, Piece
from conversation import Conversation, Refused, check_template
from llguidance import LLMatcher
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "PADDOCK_ENGINE_KEY"
COLD = 1e-5
"""Below this temperature the likeliest token is chosen, as in vLLM: float32 would overflow."""
LOST = "\N{REPLACEMENT CHARACTER}"


class Text:
    """A growing answer's text, which holds back what may be the beginning of a stop text.

    Special tokens are left out: all, or those of `dropped` alone.
    """

    def __init__(
        self, tokenizer: Any, stops: Sequence[str], dropped: frozenset[int] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._dropped = dropped
        self._stops = stops
        self._ids: list[int] = []
        self._from = 0
        self._decoded = 0
        self._held = ""
        self.stopped = False

    def _decode(self, ids: list[int]) -> str:
        if self._dropped is None:
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        return str(self._tokenizer.decode([one for one in ids if one not in self._dropped]))

    def add(self, token: int) -> str:
        """The text that may go out with a token. It has only complete characters."""
        self._ids.append(token)
        # A token's text can depend on the one before it, so some are decoded again.
        before = self._decode(self._ids[self._from : self._decoded])
        after = self._decode(self._ids[self._from :])
        if after.endswith(LOST) and len(self._ids) - self._decoded < 8:
            return ""
        self._from, self._decoded = self._decoded, len(self._ids)
        return self._passed(after[len(before) :])

    def end(self) -> str:
        """The text that was held back."""
        rest = self._decode(self._ids[self._from :])
        rest = rest[len(self._decode(self._ids[self._from : self._decoded])) :]
        passed = self._passed(rest)
        held, self._held = self._held, ""
        return passed if self.stopped else passed + held

    def _passed(self, new: str) -> str:
        text = self._held + new
        positions = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if positions:
            self.stopped, self._held = True, ""
            return text[: min(positions)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the text's end begin the stop text."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if stop.startswith(text[-size:])), 0)


class Model:
    """The model: its texts are made here, and its tokens come from the worker."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name = settings["alias"]
        self.context: int = settings["context"]
        self.token_count = 0
        self._settings = settings
        self._queues: dict[int, asyncio.Queue[Token | str | None]] = {}
        self._numbers = itertools.count()
        self._worker, self._pipe = _start(settings)

    async def start(self) -> None:
        """Waits until the worker has loaded, and requests a token as a proof that it can serve.

        If the worker ends, before or after, this process ends in the same way.
        """
        # Only the worker computes. Here torch would take 200 MB for nothing.
        sys.modules["torch"] = None  # type: ignore[assignment]
        from transformers import AutoTokenizer

        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(None, self._pipe.recv)
        except EOFError:
            self._gone()
        settings = self._settings
        self.vocabulary: int = loaded.vocabulary
        self.tokenizer = AutoTokenizer.from_pretrained(settings["path"])
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            # The library makes a blank tokenizer if the files have none.
            sys.exit("no_tokenizer: it knows no words")
        if settings["chat_template"]:
            self.tokenizer.chat_template = settings["chat_template"]
        check_template(self.tokenizer)
        form, thought = settings["tool_format"], settings["thought"]
        self.conversation = Conversation(self.tokenizer, form, thought)
        ends = self.tokenizer.eos_token_id if loaded.ends is None else loaded.ends
        self._ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self._chat_ends = [*self._ends, *settings["stop_ids"]]
        loop.add_reader(self._pipe.fileno(), self._hear)
        async for _ in self.tokens([0], Sampling(temperature=0), 1, []):
            pass

    def _hear(self) -> None:
        try:
            updates = self._pipe.recv()
        except (EOFError, OSError):
            self._gone()
        for number, update in updates:
            self.token_count += isinstance(update, Token)
            if queue := self._queues.get(number):
                queue.put_nowait(update)

    def _gone(self) -> NoReturn:
        code = self._worker.wait()
        sys.stdout.flush()
        if code < 0:
            with contextlib.suppress(OSError):  # SIGKILL has no other way
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code or 1)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._queues)

    async def tokens(
        self, prompt: list[int], sampling: Sampling, most: int, ends: list[int]
    ) -> AsyncGenerator[Token, None]:
        """The tokens of an answer, as they come, to the first of `ends`.

        Closing the iterator ends the work on the answer.

        Raises:
            RuntimeError: the batch failed.
        """
        number = next(self._numbers)
        queue = self._queues[number] = asyncio.Queue()
        self._pipe.send((number, Ask(prompt, sampling, most, ends)))
        over = False
        try:
            while True:
                token = await queue.get()
                if isinstance(
                    token, str
                ):  # the batch may go on with the request, so it is cancelled
                    raise RuntimeError(token)
                if token is None:
                    over = True
                    return
                yield token
        finally:
            del self._queues[number]
            if not over:
                self._pipe.send((number, None))

    def ends(self, chat: bool) -> list[int]:
        """The tokens that end a text, or an answer in a chat."""
        return self._chat_ends if chat else self._ends

    def check(self, prompt: list[int], most: int | None) -> int:
        """The tokens that an answer may have. Raises `Refused` for a prompt that is too long."""
        room = self.context - len(prompt)
        if not prompt:
            raise Refused("the prompt has no tokens", "prompt")
        # A token beyond the vocabulary would end the batch and all its requests.
        strange = next((token for token in prompt if not 0 <= token < self.vocabulary), None)
        if strange is not None:
            reason = f"the prompt has token {strange}, and the model {self.vocabulary}"
            raise Refused(f"{reason}, from 0", "prompt")
        if room < 1:
            reason = f"the prompt has {len(prompt)} tokens, and the context {self.context}"
            raise Refused(f"{reason}; shorten it, or launch with more context", "prompt")
        return room if most is None else min(room, most)


def _start(settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Connection]:
    """The worker's process, and our end of the pipe to it."""
    ours, theirs = Pipe()
    environ = {name: value for name, value in os.environ.items() if name != KEY}
    with theirs:
        end = theirs.fileno()
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
        command = [sys.executable, program, json.dumps(settings), str(end)]
        return subprocess.Popen(command, env=environ, pass_fds=[end]), ours


def _sampling(body: dict[str, Any], model: Model, top: int | None, grammar: str) -> Sampling:
    vocabulary, fast = model.vocabulary, model.tokenizer.is_fast
    bias = tuple(
        (int(token), float(amount)) for token, amount in (body.get("logit_bias") or {}).items()
    )
    if any(not 0 <= token < vocabulary for token, _ in bias):
        raise Refused(f"logit_bias has a token beyond the {vocabulary} of the model", "logit_bias")
    names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
    values = {n: body[n] for n in (*names, "repetition_penalty", "seed") if body.get(n) is not None}
    if "top_k" in values:
        values["top_k"] = max(0, int(values["top_k"]))
    if values.get("temperature", 1.0) < COLD:
        values["temperature"] = 0.0
    if "seed" in values:
        values["seed"] = int(values["seed"]) % (1 << 63)
    grammar = grammar or body.get("grammar") or ""
    if grammar and not fast:
        raise Refused("the model's tokenizer is none that grammars can be made of", "grammar")
    if grammar and (reason := LLMatcher.validate_grammar(grammar)):
        raise Refused(f"the grammar cannot be used: {reason}", "grammar")
    return Sampling(**values, logit_bias=bias, top_logprobs=top, grammar=grammar)


@dataclass
class ParsedRequest:
    """One request to one of the two routes."""

    chat: bool
    prompt: list[int]
    sampling: Sampling
    most: int
    stops: list[str]
    endless: bool
    stream: bool
    usage: bool
    top: int | None
    expected: Expected | None = None


def _parse_request(model: Model, body: dict[str, Any], chat: bool) -> ParsedRequest:
    expected, grammar = None, ""
    if chat:
        prompt = model.conversation.prompt(body)
        expected = model.conversation.expect(body, prompt)
        grammar = model.conversation.grammar(body, expected)
        top = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
    else:
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = model.tokenizer(prompt)["input_ids"]
        top = None if body.get("logprobs") is None else int(body["logprobs"])
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    stops = body.get("stop") or []
    return ParsedRequest(
        chat=chat,
        prompt=list(prompt),
        sampling=_sampling(body, model, top, grammar),
        most=model.check(list(prompt), limit),
        stops=[stops] if isinstance(stops, str) else list(stops),
        endless=bool(body.get("ignore_eos")),
        stream=bool(body.get("stream")),
        usage=bool((body.get("stream_options") or {}).get("include_usage")),
        top=top,
        expected=expected,
    )


class Answer:
    """An answer in the making, as events of OpenAI's."""

    def __init__(self, model: Model, request: ParsedRequest) -> None:
        self._model = model
        self._request = request
        self._count = 0
        self._reason = "length"
        self._offset = 0
        self._parser = None if request.expected is None else Parser(request.expected)
        self._calls = 0
        self._thought = 0
        kind = "chat.completion.chunk" if request.chat else "text_completion"
        prefix = "chatcmpl" if request.chat else "cmpl"
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex[:24]}",
            "object": kind,
            "created": int(time.time()),
            "model": model.name,
        }

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """All events, as OpenAI's JSON; the last one has the finish reason."""
        request = self._request
        dropped = None if self._parser is None else self._model.conversation.dropped
        text = Text(self._model.tokenizer, request.stops, dropped)
        ends = [] if request.endless else self._model.ends(request.chat)
        tokens = self._model.tokens(request.prompt, request.sampling, request.most, ends)
        if request.chat:
            yield self._event({"role": "assistant", "content": ""})
        waiting: list[Token] = []
        async with contextlib.aclosing(tokens):
            async for token in tokens:
                self._count += 1
                if token.id in ends:
                    self._reason = "stop"
                    break
                waiting.append(token)
                piece = text.add(token.id)
                if text.stopped:
                    self._reason = "stop"
                for event in self._pieces(piece, waiting):
                    yield event
                    waiting = []
                self._thought += self._parser is not None and self._parser.thinks
                if text.stopped:
                    break
        piece = "" if text.stopped else text.end()
        if text.stopped:
            self._reason = "stop"
        for event in self._pieces(piece, waiting, over=True):
            yield event
            waiting = []
        if waiting and not text.stopped:  # tokens without text have probabilities too
            yield self._piece(Piece("content", ""), waiting)
        if self._calls and self._reason == "stop":
            self._reason = "tool_calls"
        yield self._event({} if request.chat else "", finish_reason=self._reason)

    def _pieces(
        self, text: str, tokens: list[Token], over: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The events of a text, of which the first has the tokens' probabilities."""
        if self._parser is None:
            pieces = [Piece("content", text)] if text else []
        else:
            pieces = self._parser.feed(text) if text else []
            pieces += self._parser.end(self._reason == "length") if over else []
        for index, piece in enumerate(pieces):
            yield self._piece(piece, [] if index else tokens)

    def usage(self) -> dict[str, Any]:
        """The tokens of prompt, answer and thoughts, as `usage` of OpenAI has them."""
        prompt = len(self._request.prompt)
        counts: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": self._count,
            "total_tokens": prompt + self._count,
        }
        if self._thought:
            counts["completion_tokens_details"] = {"reasoning_tokens": self._thought}
        return counts

    def last(self) -> dict[str, Any]:
        """The event with the `usage`, which has no `choices`."""
        return {**self._base, "choices": [], "usage": self.usage()}

    def _piece(self, piece: Piece, tokens: list[Token]) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens and self._request.top is not None else None
        return self._event(self._delta(piece) if self._request.chat else piece.text, logprobs)

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if piece.kind == "content":
            return {"content": piece.text}
        if piece.kind == "reasoning":
            return {"reasoning_content": piece.text}
        call: dict[str, Any] = {"function": {"arguments": piece.text}}
        if piece.kind == "call":
            self._calls += 1
            function = {"name": piece.text, "arguments": ""}
            name = self._model.conversation.new_id()
            call = {"id": name, "type": "function", "function": function}
        return {"tool_calls": [{"index": self._calls - 1, **call}]}

    def _event(
        self, content: Any, logprobs: Any = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        key = "delta" if self._request.chat else "text"
        choice = {"index": 0, key: content, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._base, "choices": [choice]}

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        if self._request.chat:
            return {
                "content": [
                    {
                        **self._token_logprob(token.id, token.logprob),
                        "top_logprobs": [
                            self._token_logprob(*candidate) for candidate in token.top
                        ],
                    }
                    for token in tokens
                ]
            }
        names = [self._name(token.id) for token in tokens]
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self._name(i): value for i, value in t.top} for t in tokens],
            "text_offset": offsets,
        }

    def _name(self, token: int) -> str:
        return str(self._model.tokenizer.decode([token]))

    def _token_logprob(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._name(token)
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


async def _unless_left(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The result of the work, which is cancelled when the client leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(await working) if working.done() else Response(status_code=499)
    finally:
        leaving.cancel()
        if working.cancel():
            await asyncio.wait({working})


async def _merged(answer: Answer, chat: bool) -> dict[str, Any]:
    """All events as one answer."""
    events = [event async for event in answer.events()]
    choices = [event["choices"][0] for event in events]
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    merged = (
        {key: [x for part in logprobs for x in part[key]] for key in logprobs[0]}
        if logprobs
        else None
    )
    end = {"index": 0, "logprobs": merged, "finish_reason": choices[-1]["finish_reason"]}
    base = {**events[0], "usage": answer.usage()}
    if not chat:
        text = "".join(choice["text"] for choice in choices)
        return {**base, "choices": [{"text": text, **end}]}
    message = _message([choice["delta"] for choice in choices])
    return {**base, "object": "chat.completion", "choices": [{"message": message, **end}]}


def _message(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """All deltas of a chat as one message."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    for delta in deltas:
        for key in ("content", "reasoning_content"):
            if key in delta:
                message[key] = message.get(key, "") + delta[key]
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if "id" in call:
                calls.append({key: value for key, value in call.items() if key != "index"})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def _error(status: int, message: str, field: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": field, "code": status}
    return JSONResponse({"error": error}, status)


def application(model: Model, key: str) -> Starlette:
    """The routes. All except `/health` require the key."""

    def opened(request: Request) -> bool:
        sent = request.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), f"Bearer {key}".encode())

    async def health(_: Request) -> Response:
        counts = {"running": model.running, "tokens": model.token_count}
        return JSONResponse({"status": "ok", **counts})

    async def generate(request: Request) -> Response:
        if not opened(request):
            return _error(401, "this engine answers its gateway alone")
        chat = request.url.path.endswith("chat/completions")
        body = json.loads(await request.body())
        try:
            parsed = _parse_request(model, body, chat)
        except Refused as error:
            return _error(400, str(error), error.field)
        answer = Answer(model, parsed)
        if not parsed.stream:
            return await _unless_left(request, _merged(answer, chat))
        return StreamingResponse(_stream(answer, parsed), media_type="text/event-stream")

    async def count(request: Request) -> Response:
        if not opened(request):
            return _error(401, "this engine answers its gateway alone")
        try:
            prompt = model.conversation.prompt(json.loads(await request.body()))
        except Refused as error:
            return _error(400, str(error), error.field)
        return JSONResponse({"input_tokens": len(prompt)})

    async def failed(_: Request, error: Exception) -> Response:
        return _error(500, f"{type(error).__name__}: {error}")

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail))

    routes = [
        Route("/health", health),
        Route("/v1/completions", generate, methods=["POST"]),
        Route("/v1/chat/completions", generate, methods=["POST"]),
        Route("/v1/chat/completions/input_tokens", count, methods=["POST"]),
    ]
    handlers: Any = {HTTPException: unknown, Exception: failed}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _stream(answer: Answer, request: ParsedRequest) -> AsyncGenerator[bytes, None]:
    try:
        async with contextlib.aclosing(answer.events()) as events:
            async for event in events:
                yield b"data: %b\n\n" % json.dumps(event).encode()
    except RuntimeError as error:
        body = {"error": {"message": str(error), "type": "server_error", "code": 500}}
        yield b"data: %b\n\n" % json.dumps(body).encode()
        return
    if request.usage:
        yield b"data: %b\n\n" % json.dumps(answer.last()).encode()
    yield b"data: [DONE]\n\n"


async def _serve(settings: dict[str, Any]) -> None:
    key = os.environ[KEY]
    print(f"loading {settings['path']}", flush=True)
    model = Model(settings)
    await model.start()
    print("loaded", flush=True)
    config = uvicorn.Config(
        application(model, key),
        host="127.0.0.1",
        port=settings["port"],
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve()


def main() -> None:
    """Serves the model of the one argument until a signal ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvloop.run(_serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
