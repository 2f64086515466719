"""The child process: a model on Transformers' continuous batching, behind OpenAI's routes.

It runs in the engine's own environment and imports nothing of Paddock. Transformers' own server
(`transformers serve`) has one sampling setting for all requests, and no stop strings, logprobs,
penalties, seeds, token lists as prompts or key; so the routes and the sampling are ours, and the
loading, the cache, the scheduling and the kernels are Transformers'.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import math
import os
import signal
import sys
import time
import uuid
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import bnb
import torch
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.generation.configuration_utils import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)
from transformers.generation.logits_process import LogitsProcessorList

PAGE_TOKENS = 64
BITS = {"4-bit": 4, "8-bit": 8}
LOST = "\N{REPLACEMENT CHARACTER}"


class Refused(Exception):
    """A request that cannot be served; `field` is what is wrong with it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Sampling:
    """How one request's tokens are chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    top_logprobs: int | None = None

    @cached_property
    def as_is(self) -> bool:
        """Whether the scores are taken as they come."""
        plain = self.presence_penalty == self.frequency_penalty == 0
        return plain and self.repetition_penalty == 1 and not self.logit_bias

    @cached_property
    def drawn(self) -> bool:
        """Whether the token is drawn from all that there are, by chances of the temperature."""
        narrow = self.top_k or self.min_p or self.top_p < 1
        return self.temperature > 0 and not narrow and self.as_is


@dataclass
class Token:
    """One chosen token, with its log probability and the likeliest ones, where they were asked for.

    Probabilities are the model's own, before temperature and penalties, as OpenAI's are.
    """

    id: int
    logprob: float = 0.0
    top: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Running:
    """One request in the batch."""

    prompt: list[int]
    sampling: Sampling
    put: Callable[[Token | str | None], None]
    generator: torch.Generator | None = None
    counts: dict[int, int] = field(default_factory=dict)


class Sampler(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # it has no types here
    """Chooses every request's next token by its own settings.

    It leaves one token possible in each row, which the greedy choice after it then takes. Requests
    are looked up by their id in `running`; the tokens go out from here, once a step.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.running: dict[str, Running] = {}
        self.tokens = 0
        self._loop = loop
        self._rows: list[str] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """There are no arguments on the device."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Notes whose rows come next."""
        self._rows = [request.state.request_id for request in requests_with_new_token]
        return torch.zeros(len(self._rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores of shape [rows, vocabulary], with all but the chosen tokens ruled out."""
        chosen = scores.argmax(dim=-1).tolist()
        found: list[tuple[Running, Token]] = []
        requests = [self.running.get(name) for name in self._rows]  # None: just called off
        self._draw(scores, requests, chosen)
        for row, request in enumerate(requests):
            if request is None:
                continue
            if not request.sampling.drawn:
                chosen[row] = _chosen(scores[row], chosen[row], request)
            token = _told(scores[row], chosen[row], request.sampling.top_logprobs)
            if not request.sampling.as_is:
                request.counts[token.id] = request.counts.get(token.id, 0) + 1
            found.append((request, token))
        self.tokens += len(found)
        self._loop.call_soon_threadsafe(_deliver, found)
        ids = torch.tensor(chosen, device=scores.device).unsqueeze(-1)
        return torch.full_like(scores, -math.inf).scatter_(-1, ids, 0.0)

    def _draw(
        self, scores: torch.Tensor, requests: list[Running | None], chosen: list[int]
    ) -> None:
        """Draws for all rows at once that are drawn from the whole vocabulary: most are."""
        drawn = [(row, one) for row, one in enumerate(requests) if one and one.sampling.drawn]
        if not drawn:
            return
        heat = [one.sampling.temperature for _, one in drawn]
        of = scores[[row for row, _ in drawn]]
        chances = (of / torch.tensor(heat, device=of.device).unsqueeze(-1)).softmax(-1)
        ids = torch.multinomial(chances, 1).squeeze(-1).tolist()
        for at, (row, one) in enumerate(drawn):
            if one.generator is not None:
                ids[at] = int(torch.multinomial(chances[at], 1, generator=one.generator))
            chosen[row] = ids[at]


def _chosen(scores: torch.Tensor, best: int, request: Running) -> int:
    """One row's token, of whatever settings; `best` is that of the highest score."""
    sampling = request.sampling
    scores = _penalized(scores, request)
    if sampling.temperature <= 0:
        return best if sampling.as_is else int(scores.argmax())
    return _sampled(scores, sampling, request.generator)


def _told(scores: torch.Tensor, chosen: int, most: int | None) -> Token:
    """The token, with as many log probabilities as were asked for."""
    if most is None:
        return Token(chosen)
    logprobs = scores.log_softmax(-1)
    values, ids = logprobs.topk(min(most, logprobs.shape[-1]))
    top = list(zip(ids.tolist(), values.tolist(), strict=True))
    return Token(chosen, float(logprobs[chosen]), top)


def _deliver(found: list[tuple[Running, Token]]) -> None:
    for request, token in found:
        request.put(token)


def _penalized(scores: torch.Tensor, request: Running) -> torch.Tensor:
    """The scores with penalties and biases, by OpenAI's formula; a copy where there are any."""
    sampling = request.sampling
    if sampling.as_is:
        return scores
    scores = scores.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*request.prompt, *request.counts}), device=scores.device)
        of = scores[seen]
        by = sampling.repetition_penalty
        scores[seen] = torch.where(of > 0, of / by, of * by)
    if request.counts and (sampling.presence_penalty or sampling.frequency_penalty):
        ids = torch.tensor(list(request.counts), device=scores.device)
        times = torch.tensor(list(request.counts.values()), device=scores.device)
        scores[ids] -= sampling.presence_penalty + sampling.frequency_penalty * times
    for token, bias in sampling.logit_bias:
        scores[token] += bias
    return scores


def _sampled(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    most = min(sampling.top_k or len(scores), len(scores))
    values, ids = (scores / sampling.temperature).topk(most)
    best = values == values[0]
    ids[best] = ids[best].sort().values  # of equals the first, as in the greedy choice
    chances = values.softmax(-1)
    if sampling.min_p:
        kept = chances >= sampling.min_p * chances[0]
        chances, ids = chances[kept], ids[kept]
    if sampling.top_p < 1:
        before = chances.cumsum(-1) - chances
        kept = before < sampling.top_p * chances.sum()
        kept[0] = True
        chances, ids = chances[kept], ids[kept]
    return int(ids[int(torch.multinomial(chances, 1, generator=generator))])


class Text:
    """A growing answer's text: what of it may go out, given that a stop text may be beginning."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids: list[int] = []
        self._from = 0
        self._told = 0
        self._held = ""
        self.stopped = False

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def add(self, token: int) -> str:
        """What a token adds to the text that may go out; characters go out whole."""
        self._ids.append(token)
        # A token's text can depend on the one before it, so some are decoded again.
        before = self._decode(self._ids[self._from : self._told])
        after = self._decode(self._ids[self._from :])
        if after.endswith(LOST) and len(self._ids) - self._told < 8:
            return ""
        self._from, self._told = self._told, len(self._ids)
        return self._passed(after[len(before) :])

    def end(self) -> str:
        """What was held back."""
        rest = self._decode(self._ids[self._from :])
        rest = rest[len(self._decode(self._ids[self._from : self._told])) :]
        passed = self._passed(rest)
        held, self._held = self._held, ""
        return passed if self.stopped else passed + held

    def _passed(self, new: str) -> str:
        text = self._held + new
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the text's end begin the stop text."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if stop.startswith(text[-size:])), 0)


class Model:
    """A loaded model and its batch."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.name = given["alias"]
        self.context: int = given["context"]
        options = given["options"]
        if options["n_threads"]:
            torch.set_num_threads(options["n_threads"])
        self.tokenizer = AutoTokenizer.from_pretrained(given["path"])
        if given["chat_template"]:
            self.tokenizer.chat_template = given["chat_template"]
        self.model = _load(given["path"], given["quantization"], options)
        self._eos = _eos(self.model, self.tokenizer)
        self._blocks = given["slots"] * -(-(self.context + 1) // PAGE_TOKENS) + 1
        self._slots = given["slots"]
        self._batch = options["n_batch"]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to serve; a request that it makes itself shows that it can."""
        self.sampler = Sampler(loop)
        self.manager = self.model.init_continuous_batching(
            GenerationConfig(
                do_sample=False, eos_token_id=self._eos or -1, max_new_tokens=self.context
            ),
            ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=self._blocks,
                max_batch_tokens=max(self._batch, self._slots),
                max_requests_per_batch=self._slots,
                use_async_batching=False,
                use_cuda_graph=False,
            ),
        )
        processors = self.manager.logit_processor
        processors.logits_processor = LogitsProcessorList([self.sampler])
        processors.tensors_required, processors.do_processing = 1, True
        self.manager.start()

    async def tokens(
        self, prompt: list[int], sampling: Sampling, most: int, endless: bool
    ) -> AsyncGenerator[Token, None]:
        """The tokens of an answer, as they come; closing the iterator ends the work on it.

        Raises:
            RuntimeError: the batch failed.
        """
        name = uuid.uuid4().hex
        queue: asyncio.Queue[Token | str | None] = asyncio.Queue()
        generator = None
        if sampling.seed is not None:
            generator = torch.Generator(self.model.device).manual_seed(sampling.seed)
        self.sampler.running[name] = Running(prompt, sampling, queue.put_nowait, generator)
        self.manager.register_result_handler(name, lambda end: queue.put_nowait(end.error))
        eos = -1 if endless else (self._eos or -1)
        self.manager.add_request(prompt, name, max_new_tokens=most, eos_token_id=eos)
        over = False
        try:
            while True:
                token = await queue.get()
                if not isinstance(token, Token):
                    over = True
                    if token is not None:
                        raise RuntimeError(token)
                    return
                yield token
        finally:
            del self.sampler.running[name]
            if not over:
                self.manager.cancel_request(name)

    def ends(self, token: int) -> bool:
        """Whether a token ends a text."""
        return token in self._eos

    def check(self, prompt: list[int], most: int | None) -> int:
        """The tokens that an answer may have. Raises `Refused` for a prompt that is too long."""
        room = self.context - len(prompt)
        if not prompt:
            raise Refused("the prompt has no tokens", "prompt")
        if room < 1:
            reason = f"the prompt has {len(prompt)} tokens, and the context {self.context}"
            raise Refused(f"{reason}; shorten it, or launch with more context", "prompt")
        return room if most is None else min(room, most)


def _load(path: str, quantization: str, options: dict[str, Any]) -> Any:
    """The model, in the quantization of its files or, of plain files, in the one asked for."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(path)
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if method in {"gptq", "awq"}:
        import gptq

        model, report = gptq.load(path, device)
    else:
        more: dict[str, Any] = {"device_map": options["device_map"] or device}
        if options["attn_implementation"]:
            more["attn_implementation"] = options["attn_implementation"]
        bits = None if method else BITS.get(quantization)
        if method == "bitsandbytes":
            bnb.unfuse(config.model_type)
        elif bits:
            more |= bnb.prepare(config.model_type, bits, options["compute_dtype"])
        model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=options["dtype"], output_loading_info=True, **more
        )
        if bits:
            part, names = bnb.left(model)
            if part > bnb.PLAIN:
                some = ", ".join(names[:3])
                sys.exit(f"quantization_left: {part:.0%} of the weights, {some} among them")
    _check(report)
    for adapter in options["lora"]:
        model = _adapted(model, os.path.expanduser(adapter), quantization)
    return model.eval()


def _adapted(model: Any, path: str, quantization: str) -> Any:
    """The model with a LoRA adapter: in its weights, or beside them where they are quantized."""
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, path)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            sys.exit(f"adapter_refused: {path}: {str(error).splitlines()[0]}")
    for one in told:
        if "missing adapter keys" in str(one.message):
            sys.exit(f"weights_mismatch: {path}: {one.message}")
    return adapted.merge_and_unload() if quantization == "none" else adapted.base_model.model


def _check(report: dict[str, Any]) -> None:
    """Ends the process if weights were made up or left aside: such a model talks nonsense."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(map(str, report.get(kind) or ()))
        if names:
            some, what = ", ".join(names[:3]), kind.partition("_")[0]
            sys.exit(f"weights_mismatch: {len(names)} {what} in the load report: {some}")


def _eos(model: Any, tokenizer: Any) -> list[int]:
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _sampling(given: dict[str, Any], vocabulary: int, top: int | None) -> Sampling:
    bias = tuple((int(token), float(by)) for token, by in (given.get("logit_bias") or {}).items())
    if any(not 0 <= token < vocabulary for token, _ in bias):
        raise Refused(f"logit_bias has a token beyond the {vocabulary} of the model", "logit_bias")
    named = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
    values = {
        n: given[n] for n in (*named, "repetition_penalty", "seed") if given.get(n) is not None
    }
    if "top_k" in values:
        values["top_k"] = max(0, int(values["top_k"]))
    if "seed" in values:
        values["seed"] = int(values["seed"]) % (1 << 63)
    return Sampling(**values, logit_bias=bias, top_logprobs=top)


@dataclass
class Asked:
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


def _asked(model: Model, given: dict[str, Any], chat: bool) -> Asked:
    if chat:
        prompt = _chat_prompt(model, given)
        top = int(given.get("top_logprobs") or 0) if given.get("logprobs") else None
    else:
        prompt = given["prompt"]
        if isinstance(prompt, str):
            prompt = model.tokenizer(prompt)["input_ids"]
        top = None if given.get("logprobs") is None else int(given["logprobs"])
    limit = given.get("max_completion_tokens") or given.get("max_tokens")
    stops = given.get("stop") or []
    return Asked(
        chat=chat,
        prompt=list(prompt),
        sampling=_sampling(given, model.model.config.vocab_size, top),
        most=model.check(list(prompt), limit),
        stops=[stops] if isinstance(stops, str) else list(stops),
        endless=bool(given.get("ignore_eos")),
        stream=bool(given.get("stream")),
        usage=bool((given.get("stream_options") or {}).get("include_usage")),
        top=top,
    )


def _chat_prompt(model: Model, given: dict[str, Any]) -> list[int]:
    if not model.tokenizer.chat_template:
        raise Refused("the model has no chat template", "messages")
    try:
        # The template writes the special tokens itself, so none are added to its text.
        made = model.tokenizer.apply_chat_template(
            given["messages"],
            add_generation_prompt=given.get("add_generation_prompt", True),
            tokenize=True,
            return_dict=True,
            **(given.get("chat_template_kwargs") or {}),
        )
    except Exception as error:  # a template raises what it likes at messages that it does not take
        raise Refused(f"the chat template refused the messages: {error}", "messages") from error
    return list(made["input_ids"])


class Answer:
    """An answer in the making, as events of OpenAI's."""

    def __init__(self, model: Model, asked: Asked) -> None:
        self._model = model
        self._asked = asked
        self._count = 0
        self._reason = "length"
        self._offset = 0
        kind = "chat.completion.chunk" if asked.chat else "text_completion"
        prefix = "chatcmpl" if asked.chat else "cmpl"
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex[:24]}",
            "object": kind,
            "created": int(time.time()),
            "model": model.name,
        }

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """All events; the last one has the reason of the end."""
        asked, text = self._asked, Text(self._model.tokenizer, self._asked.stops)
        tokens = self._model.tokens(asked.prompt, asked.sampling, asked.most, asked.endless)
        if asked.chat:
            yield self._event({"role": "assistant", "content": ""})
        waiting: list[Token] = []
        async with contextlib.aclosing(tokens):
            async for token in tokens:
                self._count += 1
                if not asked.endless and self._model.ends(token.id):
                    self._reason = "stop"
                    break
                waiting.append(token)
                piece = text.add(token.id)
                if text.stopped:
                    self._reason = "stop"
                if piece:
                    yield self._piece(piece, waiting)
                    waiting = []
                if text.stopped:
                    break
        piece = "" if text.stopped else text.end()
        if text.stopped:
            self._reason = "stop"
        if piece or (waiting and not text.stopped):  # what has no text has its probabilities too
            yield self._piece(piece, waiting)
        yield self._event({} if asked.chat else "", finish_reason=self._reason)

    def usage(self) -> dict[str, int]:
        """The tokens of prompt and answer."""
        prompt = len(self._asked.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._count,
            "total_tokens": prompt + self._count,
        }

    def last(self) -> dict[str, Any]:
        """The event with the usage, which has no choice."""
        return {**self._base, "choices": [], "usage": self.usage()}

    def _piece(self, piece: str, tokens: list[Token]) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if self._asked.top is not None else None
        return self._event({"content": piece} if self._asked.chat else piece, logprobs)

    def _event(
        self, content: Any, logprobs: Any = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        key = "delta" if self._asked.chat else "text"
        choice = {"index": 0, key: content, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._base, "choices": [choice]}

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        if self._asked.chat:
            return {
                "content": [
                    {
                        **self._told(token.id, token.logprob),
                        "top_logprobs": [self._told(*one) for one in token.top],
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

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        name = self._name(token)
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


async def _unless_left(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The work's result; it is called off when the client leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(await working) if working.done() else Response(status_code=499)
    finally:
        leaving.cancel()
        if working.cancel():
            await asyncio.wait({working})


async def _whole(answer: Answer, chat: bool) -> dict[str, Any]:
    """All events as one answer."""
    events = [event async for event in answer.events()]
    choices = [event["choices"][0] for event in events]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    merged = {key: [x for one in told for x in one[key]] for key in told[0]} if told else None
    end = {"index": 0, "logprobs": merged, "finish_reason": choices[-1]["finish_reason"]}
    base = {**events[0], "usage": answer.usage()}
    if not chat:
        text = "".join(choice["text"] for choice in choices)
        return {**base, "choices": [{"text": text, **end}]}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    message = {"role": "assistant", "content": text}
    return {**base, "object": "chat.completion", "choices": [{"message": message, **end}]}


def _error(status: int, message: str, field: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": field, "code": status}
    return JSONResponse({"error": error}, status)


def application(model: Model, key: str) -> Starlette:
    """The routes; all but the health ask for the key."""

    def opened(request: Request) -> bool:
        sent = request.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), f"Bearer {key}".encode())

    async def health(_: Request) -> Response:
        alive = model.manager.is_running()
        sampler = model.sampler
        told = {"status": "ok" if alive else "failed", "running": len(sampler.running)}
        told["tokens"] = sampler.tokens
        return JSONResponse(told, 200 if alive else 503)

    async def generate(request: Request) -> Response:
        if not opened(request):
            return _error(401, "this engine answers its gateway alone")
        chat = request.url.path.endswith("chat/completions")
        given = json.loads(await request.body())
        try:
            asked = _asked(model, given, chat)
        except Refused as error:
            return _error(400, str(error), error.field)
        answer = Answer(model, asked)
        if not asked.stream:
            return await _unless_left(request, _whole(answer, chat))
        return StreamingResponse(_stream(answer, asked), media_type="text/event-stream")

    async def count(request: Request) -> Response:
        if not opened(request):
            return _error(401, "this engine answers its gateway alone")
        try:
            prompt = _chat_prompt(model, json.loads(await request.body()))
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


async def _stream(answer: Answer, asked: Asked) -> AsyncGenerator[bytes, None]:
    try:
        async with contextlib.aclosing(answer.events()) as events:
            async for event in events:
                yield b"data: %b\n\n" % json.dumps(event).encode()
    except RuntimeError as error:
        body = {"error": {"message": str(error), "type": "server_error", "code": 500}}
        yield b"data: %b\n\n" % json.dumps(body).encode()
        return
    if asked.usage:
        yield b"data: %b\n\n" % json.dumps(answer.last()).encode()
    yield b"data: [DONE]\n\n"


async def _serve(model: Model, port: int) -> None:
    model.start(asyncio.get_running_loop())
    probe = model.tokens([0], Sampling(temperature=0), 1, endless=True)
    async for _ in probe:
        pass
    key = os.environ["PADDOCK_ENGINE_KEY"]
    config = uvicorn.Config(
        application(model, key),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        os._exit(0)  # the batch's thread would be waited for, and has nothing to put in order


def main() -> None:
    """Serves what the one argument says until a signal ends it."""
    given = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"loading {given['path']}", flush=True)
    model = Model(given)
    print("loaded", flush=True)
    uvloop.run(_serve(model, given["port"]))


if __name__ == "__main__":
    main()
