"""The child process: a model of sentence-transformers behind the routes for vectors and ranks.

It runs in the engine's own environment and imports nothing of Paddock. The library loads the model
and cuts texts into tokens; how requests are gathered is ours. One thread computes: what waits is
put together by length, so that little is spent on padding, up to a budget of padded tokens a batch.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import uvicorn
from model_files import ends_texts, limit, load, slices
from sentence_transformers.base.modules import Normalize, Transformer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from token_rows import Cut, PairPrompt, Refused, Row, Tokens, fit, part_of

# Texts are padded here, by batches, and never cut.
UNCUT: Any = {"common": {"return_tensors": None}, "text": {"padding": False, "truncation": False}}
INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")


@dataclass(eq=False)
class Item:
    """One text, or one pair, that waits. All items of a batch have the same `kind`.

    The item with the least `turn` is next. A turn is the clock at the request's arrival, plus the
    tokens that stand before the item in its request. So a request of few texts waits for a batch
    or two, and not for a whole long list that came before it.
    """

    features: Tokens
    kind: int | None
    turn: int
    done: asyncio.Future[torch.Tensor] = field(repr=False)

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.features["input_ids"])


def choose(waiting: Sequence[Item], budget: int) -> list[Item]:
    """The next batch: the item with the least turn, and the items nearest to it in length.

    Rows × the longest row stay within the budget, unless a single item exceeds it.
    """
    first = min(waiting, key=lambda item: item.turn)
    others = sorted(
        (item for item in waiting if item.kind == first.kind and item is not first),
        key=lambda item: (abs(item.length - first.length), item.turn),
    )
    batch, longest = [first], first.length
    for item in others:
        if max(longest, item.length) * (len(batch) + 1) > budget:
            break
        batch.append(item)
        longest = max(longest, item.length)
    return batch


class Batches:
    """The items that wait, and the thread that computes them."""

    def __init__(self, model: Model, budget: int) -> None:
        self._model = model
        self._budget = budget
        self._waiting: list[Item] = []
        self._some = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._clock = 0
        self.batches = self.tokens = self.padded = 0
        threading.Thread(target=self._compute, daemon=True).start()

    @property
    def waiting(self) -> int:
        """Texts and pairs that wait."""
        return len(self._waiting)

    async def results(self, rows: Sequence[Tokens], kind: int | None) -> list[Any]:
        """A `torch.Tensor` for each row: a vector or a score.

        A call that is cancelled drops the rows that have not begun.
        """
        items = []
        with self._some:
            turn = self._clock
            for row in rows:
                items.append(Item(row, kind, turn, self._loop.create_future()))
                turn += items[-1].length
            self._waiting += items
            self._some.notify()
        return await asyncio.gather(*(item.done for item in items))

    def _compute(self) -> None:
        while True:
            with self._some:
                # An item whose client has left is not computed.
                self._waiting = [item for item in self._waiting if not item.done.done()]
                if not self._waiting:
                    self._some.wait()
                    continue
                batch = choose(self._waiting, self._budget)
                self._clock = batch[0].turn
                chosen = set(map(id, batch))
                self._waiting = [item for item in self._waiting if id(item) not in chosen]
            results: Sequence[torch.Tensor] | Exception
            try:
                results = self._model.forward([item.features for item in batch], batch[0].kind)
            except Exception as error:  # noqa: BLE001 - the thread goes on; the requests of this batch fail with it
                results = error
            self.batches += 1
            self.tokens += sum(item.length for item in batch)
            self.padded += len(batch) * max(item.length for item in batch)
            self._loop.call_soon_threadsafe(_deliver, batch, results)


def _deliver(batch: Sequence[Item], results: Sequence[torch.Tensor] | Exception) -> None:
    for number, item in enumerate(batch):
        if item.done.done():
            continue
        if isinstance(results, Exception):
            item.done.set_exception(results)
        else:
            item.done.set_result(results[number])


class Model:
    """A loaded model: texts to tokens, tokens to vectors or scores."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name: str = settings["alias"]
        self.ranks = "rerank" in settings["abilities"]
        options, ranking = settings["options"], settings["ranking"]
        if options["n_threads"]:
            torch.set_num_threads(options["n_threads"])
        self.model = load(settings["path"], ranking, self.ranks, options)
        self.model.eval()
        first = self.model[0]
        if not isinstance(first, Transformer) or "text" not in first.modality_config:
            sys.exit("unsupported: the model's first module takes no plain text")
        self.tokenizer = first.tokenizer
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            # The library makes a blank one where the files have none: all texts would be alike.
            sys.exit("no_tokenizer: it knows no words")
        self.limit = min(settings["context"], limit(self.model, first))
        self.scaled = any(isinstance(module, Normalize) for module in self.model)
        self._prompts = {
            name: self._prompt_and_length(text) for name, text in self.model.prompts.items()
        }
        self._around = self._special()
        if (settings["ends_texts"] or ends_texts(settings["path"])) and not self._around[1]:
            # Its last token would be pooled in place of the one that it was trained with.
            sys.exit("unsupported: the tokenizer ends each text by code of its own (add_eos_token)")
        self.sliceable, self.slices = slices(first.config)
        self._pairs: PairPrompt | None = None
        if self.ranks and ranking:
            self._pairs = PairPrompt(self.tokenizer, ranking["template"], ranking["instruction"])
        # Only the last position's logits count, and those of all would take gigabytes.
        self._further: dict[str, Any] = {"modality": "text"}
        if first.transformer_task == "text-generation":
            self._further["logits_to_keep"] = 1

    def text_rows(self, texts: Sequence[Any], prompt: str | None, cut: Cut) -> list[Tokens]:
        """Each text or list of ids as tokens. Raises `Refused` for one that is too long."""
        texts, parts = self._parts(texts, cut)
        words = [text for text in texts if not isinstance(text, list)]
        encoded = iter(self._encode(words, prompt) if words else ())
        # What stands before a text stays, also where its start is cut.
        asked = self._bare(prompt) if prompt and cut.side == "start" else 0
        before, behind = map(len, self._around)
        rows = []
        for text in texts:
            tokens = self._of_ids(text) if isinstance(text, list) else next(encoded)
            first = before + (0 if isinstance(text, list) else asked)
            rows.append(Row(tokens, first, len(tokens["input_ids"]) - behind))
        return self._fit(rows, cut, "input", parts)

    def pair_rows(
        self, query: str, documents: Sequence[str], instruction: str | None, cut: Cut
    ) -> list[Tokens]:
        """Each document with the query as tokens. Raises `Refused` for one that is too long."""
        query = part_of(query, self._bare, self.limit, None)
        documents, parts = self._parts(documents, cut)
        if self._pairs is not None:
            if instruction is not None and not self._pairs.instructs:
                raise Refused("instruction: the model's prompt takes none", "instruction")
            rows = self._pairs.rows(query, documents, instruction)
        elif instruction is not None and "message" not in self.model[0].modality_config:
            raise Refused("instruction: the model was not trained with any", "instruction")
        else:
            rows = self._library_pairs(query, documents, instruction)
        return self._fit(rows, cut, "documents", parts)

    def _parts(self, texts: Sequence[Any], cut: Cut) -> tuple[list[Any], list[bool]]:
        """As much of each text as can count, and whether it is a part of it."""
        parts = [
            text if isinstance(text, list) else part_of(text, self._bare, self.limit, cut.side)
            for text in texts
        ]
        return parts, [len(part) < len(text) for part, text in zip(parts, texts, strict=True)]

    def _fit(
        self, rows: Sequence[Row], cut: Cut, field: str, parts: Sequence[bool]
    ) -> list[Tokens]:
        several = len(rows) > 1
        return [
            fit(
                replace(row, is_part=is_part),
                self.limit,
                cut,
                f"{field}[{number}]" if several else field,
                field,
            )
            for number, (row, is_part) in enumerate(zip(rows, parts, strict=True))
        ]

    def _encode(self, texts: list[Any], prompt: str | None) -> list[Tokens]:
        encoded = self.model.preprocess(texts, prompt=prompt, processing_kwargs=UNCUT)
        names = [name for name in INPUT_NAMES if name in encoded]
        return [{n: list(encoded[n][row]) for n in names} for row in range(len(texts))]

    def _library_pairs(
        self, query: str, documents: Sequence[str], instruction: str | None
    ) -> list[Row]:
        """Pairs as the library has them: side by side, or in the chat template of the files."""
        pairs = [(query, document) for document in documents]
        tokens = self._encode(pairs, instruction)
        if "message" in self.model[0].modality_config:
            return [Row(one) for one in tokens]
        rows = []
        for one, document in zip(tokens, documents, strict=True):
            # What a tokenizer puts behind a pair is what it puts behind a text.
            last = len(one["input_ids"]) - len(self._around[1])
            rows.append(Row(one, last - self._bare(document), last))
        return rows

    def _bare(self, text: str) -> int:
        """The tokens of a text alone."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _special(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and behind a text."""
        marked = list(self.tokenizer("a")["input_ids"])
        bare = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        at = next(n for n in range(len(marked)) if marked[n : n + len(bare)] == bare)
        return marked[:at], marked[at + len(bare) :]

    def _of_ids(self, ids: list[int]) -> Tokens:
        before, behind = self._around
        if any(token >= len(self.tokenizer) for token in ids):
            raise Refused(f"the input has ids beyond the model's {len(self.tokenizer)}", "input")
        marked = ids[: len(before)] == before and ids[len(ids) - len(behind) :] == behind
        ids = ids if marked else [*before, *ids, *behind]
        row = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if "token_type_ids" in self.tokenizer.model_input_names:
            row["token_type_ids"] = [0] * len(ids)
        return row

    def prompt(self, body: dict[str, Any]) -> tuple[str | None, int | None]:
        """The text to put before each input, and the tokens that pooling leaves out for it.

        Raises:
            Refused: the model has no prompt of the names in `prompt_name`.
        """
        if "prompt" in body:
            return self._prompt_and_length(body["prompt"])
        asked = body.get("prompt_name")
        if asked is None:
            return self._prompts.get(self.model.default_prompt_name or "", (None, None))
        names = [asked] if isinstance(asked, str) else asked
        name = next((name for name in names if name in self._prompts), None)
        if name is None and "document" in names and "query" in self._prompts:
            return None, None  # as in the library: documents stay as they are
        if name is None:
            known = ", ".join(self._prompts) or "none"
            field = body.get("prompt_field", "prompt_name")
            raise Refused(f"{field} {names[0]!r}: the model has no such prompt ({known})", field)
        return self._prompts[name]

    def _prompt_and_length(self, text: str) -> tuple[str | None, int | None]:
        length = self.model.preprocess(["a"], prompt=text).get("prompt_length") if text else None
        return text or None, None if length is None else int(length)

    @torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not read here
    def forward(self, rows: Sequence[Tokens], kind: int | None) -> list[torch.Tensor]:
        """A vector, or a score, for each row."""
        features = dict(
            self.tokenizer.pad({n: [r[n] for r in rows] for n in rows[0]}, return_tensors="pt")
        )
        features = {name: value.to(self.model.device) for name, value in features.items()}
        if kind is not None:
            features["prompt_length"] = kind
        out = self.model({**features, **self._further})
        if not self.ranks:
            return list(out["sentence_embedding"].float().cpu())
        scores = self.model.activation_fn(out["scores"].float())
        return list(scores.reshape(len(rows)).cpu())


def _sliced(model: Model, vectors: list[torch.Tensor], size: Any) -> list[torch.Tensor]:
    if size is None or size == len(vectors[0]):
        return vectors
    if not model.sliceable:
        reason = f"the model has {len(vectors[0])} dimensions, and was not trained to be cut short"
        raise Refused(f"dimensions: {reason}", "dimensions")
    fits = isinstance(size, int) and 1 <= size <= len(vectors[0])
    if not fits or (model.slices and size not in model.slices):
        known = ", ".join(map(str, model.slices)) or f"1 to {len(vectors[0])}"
        raise Refused(f"dimensions {size}: the model has {known}", "dimensions")
    cut = [vector[:size] for vector in vectors]
    return [torch.nn.functional.normalize(v, dim=0) for v in cut] if model.scaled else cut


def _written(vector: torch.Tensor, as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return [float(number) for number in vector.tolist()]


def _error(status: int, message: str, field: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": field, "code": status}
    return JSONResponse({"error": error}, status)


class Service:
    """The routes' work."""

    def __init__(self, model: Model, budget: int) -> None:
        self.model = model
        self.batches = Batches(model, budget)
        # One at a time: calls change the tokenizer's settings.
        self._cutter = ThreadPoolExecutor(1)

    async def _tokens(self, make: Callable[..., list[Tokens]], *arguments: Any) -> list[Tokens]:
        return await asyncio.get_running_loop().run_in_executor(self._cutter, make, *arguments)

    async def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to `/v1/embeddings`, as OpenAI's API has it."""
        texts = body["input"]
        if isinstance(texts, str) or (texts and isinstance(texts[0], int)):
            texts = [texts]
        loop = asyncio.get_running_loop()
        prompt, kind = await loop.run_in_executor(self._cutter, self.model.prompt, body)
        rows = await self._tokens(self.model.text_rows, texts, prompt, Cut.of(body))
        vectors = _sliced(
            self.model, await self.batches.results(rows, kind), body.get("dimensions")
        )
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, as_base64)}
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(len(row["input_ids"]) for row in rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": self.model.name, "data": data, "usage": usage}

    async def rank(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to `/v1/rerank`: `results` has a score for each document, in order."""
        asked = (body["query"], body["documents"], body.get("instruction"), Cut.of(body))
        rows = await self._tokens(self.model.pair_rows, *asked)
        scores = await self.batches.results(rows, None)
        tokens = sum(len(row["input_ids"]) for row in rows)
        return {
            "model": self.model.name,
            "results": [
                {"index": index, "relevance_score": float(score)}
                for index, score in enumerate(scores)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


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


def application(service: Service, key: str) -> Starlette:
    """The routes. All except `/health` require the key."""
    work = service.rank if service.model.ranks else service.embed

    async def health(_: Request) -> Response:
        batches = service.batches
        counted = {
            "batches": batches.batches,
            "tokens": batches.tokens,
            "padded_tokens": batches.padded,
        }
        return JSONResponse({"status": "ok", "waiting": batches.waiting, **counted})

    async def answer(request: Request) -> Response:
        sent = request.headers.get("authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {key}".encode()):
            return _error(401, "this engine answers its gateway alone")
        try:
            return await _unless_left(request, work(json.loads(await request.body())))
        except Refused as error:
            return _error(400, str(error), error.field)

    async def failed(_: Request, error: Exception) -> Response:
        return _error(500, f"{type(error).__name__}: {error}")

    async def unknown(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail))

    path = "/v1/rerank" if service.model.ranks else "/v1/embeddings"
    routes = [Route("/health", health), Route(path, answer, methods=["POST"])]
    handlers: Any = {HTTPException: unknown, Exception: failed}
    return Starlette(routes=routes, exception_handlers=handlers)


async def _serve(model: Model, budget: int, port: int) -> None:
    service = Service(model, budget)
    # The first pass sets up things that later ones reuse.
    await (
        service.rank({"query": "a", "documents": ["a"]})
        if model.ranks
        else service.embed({"input": "a"})
    )
    config = uvicorn.Config(
        application(service, os.environ["PADDOCK_ENGINE_KEY"]),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        os._exit(0)  # exit would wait for the thread, which has nothing to clean up


def main() -> None:
    """Serves the model of the one argument until a signal ends it."""
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"loading {settings['path']}", flush=True)
    model = Model(settings)
    print(f"loaded; inputs of up to {model.limit} tokens", flush=True)
    asyncio.run(_serve(model, settings["options"]["batch_tokens"], settings["port"]))


if __name__ == "__main__":
    main()
