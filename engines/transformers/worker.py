"""The process that computes: the model, its cache and its batch, behind a pipe to `serve.py`.

They are two, because in one process Python does one thing at a time: with 32 streams the texts and
events of a step cost the batch more than half of its speed, and two processors had the work of one.

The front sends `(number, Ask)`, and `(number, None)` to call a request off. This process
sends `Loaded` once, then lists of `(number, Token)`; `(number, None)` is a request's end,
`(number, "…")` its failure. It ends when the front ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, ClassVar, NoReturn

import alike
import attention
import bnb
import llguidance.hf
import numpy
import torch
from asked import Ask, Loaded, Sampling, Token
from llguidance import LLMatcher, LLTokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.generation.configuration_utils import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)
from transformers.generation.logits_process import LogitsProcessorList

PAGE_TOKENS = 64
BITS = {"4-bit": 4, "8-bit": 8}
ALIVE_SECONDS = 0.25
"""How often the batch's thread is checked for life."""

DEAD_END = "no token goes on as the grammar says"
NOT_NUMBERS = "the model's scores are not numbers: its values overflow in the type of its weights"

Messages = list[tuple[int, Token | str | None]]


@dataclass
class Running:
    """One request in the batch."""

    number: int
    prompt: list[int]
    sampling: Sampling
    generator: torch.Generator | None = None
    counts: dict[int, int] = field(default_factory=dict)
    matcher: LLMatcher | None = None
    trial: alike.Text | None = None
    """Set for a trial, which no client has sent: its tokens are fixed, and its scores are kept."""


class Sampler(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]  # it has no types here
    """Chooses every request's next token by its own settings.

    It leaves one token possible in each row, which the greedy choice after it then takes. Requests
    are looked up by their id in `running`; the tokens go out from here, once a step.
    """

    supported_kwargs: ClassVar[dict[str, type]] = {}
    ignored_kwargs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, tell: Callable[[Messages], None]) -> None:
        self.running: dict[str, Running] = {}
        self._tell = tell
        self._rows: list[str] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """There are no arguments on the device."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Notes the requests of the next rows."""
        self._rows = [request.state.request_id for request in requests_with_new_token]
        return torch.zeros(len(self._rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores of shape [rows, vocabulary], with all but the chosen tokens ruled out."""
        messages: Messages = []
        requests = [self.running.get(name) for name in self._rows]  # None: just cancelled
        allowed = self._rule_out(scores, requests, messages)
        best, ids = allowed.max(dim=-1)
        chosen = ids.tolist()
        for row, finite in enumerate(best.isfinite().tolist()):
            if not finite and (request := requests[row]):
                # Any token chosen by them would be nonsense, and the draw would end the batch.
                requests[row], chosen[row] = None, 0
                messages.append((request.number, NOT_NUMBERS))
        self._draw(allowed, requests, chosen)
        for row, request in enumerate(requests):
            if request is None:
                continue
            if request.trial is not None:
                chosen[row] = request.trial.follow[len(request.trial.scores)]
                request.trial.scores.append(scores[row].float().cpu())
                continue
            if not request.sampling.drawn:
                try:
                    chosen[row] = _chosen(allowed[row], chosen[row], request)
                except RuntimeError as error:  # else it would be the end of the whole batch
                    messages.append((request.number, f"no token can be chosen: {error}"))
                    continue
            token = _token(scores[row], chosen[row], request.sampling.top_logprobs)
            if not request.sampling.as_is:
                request.counts[token.id] = request.counts.get(token.id, 0) + 1
            if request.matcher is not None:
                request.matcher.consume_token(token.id)
            messages.append((request.number, token))
        if messages:
            self._tell(messages)
        ids = torch.tensor(chosen, device=scores.device).unsqueeze(-1)
        return torch.full_like(scores, -math.inf).scatter_(-1, ids, 0.0)

    def _rule_out(
        self, scores: torch.Tensor, requests: list[Running | None], messages: Messages
    ) -> torch.Tensor:
        """The scores, of requests with a grammar of its tokens alone; a copy where there are any.

        A request whose grammar allows no token has failed: it is taken out of the row.
        """
        masks: dict[int, bytes] = {}
        for row, request in enumerate(requests):
            if request is None or request.matcher is None:
                continue
            masks[row] = request.matcher.compute_bitmask()
            if not masks[row].strip(b"\0"):
                messages.append((request.number, DEAD_END))
                requests[row] = None
        if not masks:
            return scores
        packed = numpy.frombuffer(b"".join(masks.values()), dtype=numpy.uint8)
        bits = numpy.unpackbits(packed.reshape(len(masks), -1), axis=1, bitorder="little")
        width = min(bits.shape[1], scores.shape[-1])
        ruled_out = numpy.zeros(scores.shape, dtype=bool)
        rows = list(masks)
        ruled_out[rows, :width], ruled_out[rows, width:] = bits[:, :width] == 0, True
        return scores.masked_fill(torch.from_numpy(ruled_out).to(scores.device), -math.inf)

    def _draw(
        self, scores: torch.Tensor, requests: list[Running | None], chosen: list[int]
    ) -> None:
        """Draws at once for all rows that are drawn from the full vocabulary, which most are."""
        drawn = [
            (row, request)
            for row, request in enumerate(requests)
            if request and request.sampling.drawn
        ]
        if not drawn:
            return
        heat = [request.sampling.temperature for _, request in drawn]
        logits = scores[[row for row, _ in drawn]]
        chances = (logits / torch.tensor(heat, device=logits.device).unsqueeze(-1)).softmax(-1)
        ids = torch.multinomial(chances, 1).squeeze(-1).tolist()
        for index, (row, request) in enumerate(drawn):
            if request.generator is not None:
                ids[index] = int(torch.multinomial(chances[index], 1, generator=request.generator))
            chosen[row] = ids[index]


def _chosen(scores: torch.Tensor, best: int, request: Running) -> int:
    """One row's token, with any settings; `best` is the token of the highest score."""
    sampling = request.sampling
    scores = _penalized(scores, request)
    if sampling.temperature <= 0:
        return best if sampling.as_is else int(scores.argmax())
    return _sampled(scores, sampling, request.generator)


def _token(scores: torch.Tensor, chosen: int, most: int | None) -> Token:
    """The token, with as many log probabilities as the request wants."""
    if most is None:
        return Token(chosen)
    logprobs = scores.log_softmax(-1)
    values, ids = logprobs.topk(min(most, logprobs.shape[-1]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Token(chosen, float(logprobs[chosen]), top)


def _penalized(scores: torch.Tensor, request: Running) -> torch.Tensor:
    """The scores with penalties and biases, by OpenAI's formula; a copy where there are any."""
    sampling = request.sampling
    if sampling.as_is:
        return scores
    scores = scores.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*request.prompt, *request.counts}), device=scores.device)
        seen_scores = scores[seen]
        penalty = sampling.repetition_penalty
        scores[seen] = torch.where(seen_scores > 0, seen_scores / penalty, seen_scores * penalty)
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
    ids[best] = ids[best].sort().values  # of equal scores the first, as in the greedy choice
    chances = values.softmax(-1)
    if sampling.min_p:
        mask = chances >= sampling.min_p * chances[0]
        chances, ids = chances[mask], ids[mask]
    if sampling.top_p < 1:
        before = chances.cumsum(-1) - chances
        mask = before < sampling.top_p * chances.sum()
        mask[0] = True
        chances, ids = chances[mask], ids[mask]
    return int(ids[int(torch.multinomial(chances, 1, generator=generator))])


def _load(path: str, quantization: str, options: dict[str, Any]) -> Any:
    """The model, in the quantization of its files or, for plain files, in the requested one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(path)
    quantized = getattr(config, "quantization_config", None) or {}
    method = quantized.get("quant_method")
    if method in {"gptq", "awq"}:
        import gptq

        placement = options["device_map"] or device
        model, report = gptq.load(path, quantized, options["dtype"], placement)
        if options["attn_implementation"]:
            model.set_attn_implementation(options["attn_implementation"])
    else:
        kwargs: dict[str, Any] = {"device_map": options["device_map"] or device}
        if options["attn_implementation"]:
            kwargs["attn_implementation"] = options["attn_implementation"]
        bits = None if method else BITS.get(quantization)
        if method == "bitsandbytes":
            bnb.unfuse(config.model_type)
        elif bits:
            kwargs |= bnb.prepare(config.model_type, bits, options["compute_dtype"])
        model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=options["dtype"], output_loading_info=True, **kwargs
        )
        if bits:
            _check({**report, "mismatched_keys": bnb.misshapen(model)})
            part, names = bnb.left(model)
            if part > bnb.PLAIN:
                examples = ", ".join(names[:3])
                sys.exit(f"quantization_left: {part:.0%} of the weights, {examples} among them")
    _check(report)
    for adapter in options["lora"]:
        model = _adapted(model, os.path.expanduser(adapter), quantization)
    return model.eval()


def _leave_files(model: Any) -> None:
    """Copies the weights that are still in the pages of their files, if those are the lesser part.

    Otherwise they would keep the whole files in memory, with all that was stacked or quantized.
    """
    ranges = []
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith(".safetensors"):
                ranges.append([int(bound, 16) for bound in line.split(maxsplit=1)[0].split("-")])
    mapped = []
    for tensor in (*model.parameters(), *model.buffers()):
        address = tensor.untyped_storage().data_ptr()
        if any(begin <= address < end for begin, end in ranges):
            mapped.append(tensor)
    size = sum(tensor.nbytes for tensor in mapped)
    if 2 * size < sum(end - begin for begin, end in ranges):
        for tensor in mapped:
            tensor.data = tensor.data.clone()


def _give_back() -> None:
    """Returns to the system what loading took for a while, such as to stack or quantize weights."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another system's C library
        ctypes.CDLL(None).malloc_trim(0)


def _adapted(model: Any, path: str, quantization: str) -> Any:
    """The model with a LoRA adapter, which is merged into its weights unless they are quantized."""
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, path)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            sys.exit(f"adapter_refused: {path}: {str(error).splitlines()[0]}")
    for warning in caught:
        if "missing adapter keys" in str(warning.message):
            sys.exit(f"weights_mismatch: {path}: {warning.message}")
    return adapted.merge_and_unload() if quantization == "none" else adapted.base_model.model


def _check(report: dict[str, Any]) -> None:
    """Ends the process if the load made up or ignored weights: such a model talks nonsense."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        names = sorted(map(str, report.get(kind) or ()))
        if names:
            examples, problem = ", ".join(names[:3]), kind.partition("_")[0]
            sys.exit(f"weights_mismatch: {len(names)} {problem} in the load report: {examples}")


class Batch:
    """The loaded model and its batch."""

    def __init__(self, settings: dict[str, Any], front: Connection) -> None:
        self._front = front
        self._telling = threading.Lock()
        options = settings["options"]
        if options["n_threads"]:
            torch.set_num_threads(options["n_threads"])
        # Before the load, which may take long: the front may go meanwhile.
        threading.Thread(target=self._listen, daemon=True).start()
        self._model = _load(settings["path"], settings["quantization"], options)
        _leave_files(self._model)
        _give_back()
        self._sampler = Sampler(self._tell)
        self._strict = options["compare"]
        self._path = settings["path"]
        self._vocabularies: dict[int, LLTokenizer] = {}
        context, slots = settings["context"], settings["slots"]
        self._vocabulary = self._model.config.get_text_config().vocab_size
        attention.cap_scores(self._model)
        attention.pin_positions(self._model, context)
        self._trials = alike.expect(self._model, context, self._vocabulary)
        if any(not text.expected.isfinite().all() for text in self._trials):
            _end(f"not_numbers: {str(self._model.dtype).removeprefix('torch.')}")
        self._manager = self._model.init_continuous_batching(
            # Each request has its own end tokens.
            GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=context),
            ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=slots * -(-(context + 1) // PAGE_TOKENS) + 1,
                max_batch_tokens=max(options["n_batch"], slots),
                max_requests_per_batch=slots,
                use_async_batching=False,
                use_cuda_graph=False,
                # An implementation in the options stays; else flash attention if it is installed.
                auto_switch_to_flash=options["attn_implementation"] is None,
            ),
        )
        processors = self._manager.logit_processor
        processors.logits_processor = LogitsProcessorList([self._sampler])
        processors.tensors_required, processors.do_processing = 1, True

    def run(self) -> None:
        """Serves until the batch's thread ends, which only a failure makes it do."""
        self._try()
        ends = self._model.generation_config.eos_token_id
        self._tell(Loaded(self._vocabulary, ends))
        while self._manager.is_running():
            end = self._manager.get_result(timeout=ALIVE_SECONDS)
            if end is not None:
                self._sampler.running.pop(end.request_id, None)
                self._tell([(int(end.request_id), end.error)])

    def _try(self) -> None:
        """Starts the batch, and ends the process if its scores differ from the model's own."""
        for number, trial in enumerate(self._trials):
            name = f"trial {number}"
            self._sampler.running[name] = Running(-1, trial.prompt, Sampling(), trial=trial)
            self._manager.add_request(
                trial.prompt, name, max_new_tokens=alike.STEPS, eos_token_id=-1
            )
        self._manager.start()
        for _ in self._trials:
            while (end := self._manager.get_result(timeout=ALIVE_SECONDS)) is None:
                if not self._manager.is_running():
                    _end("batch_differs: it ends over several texts at once")
            if end.error:
                _end(f"batch_differs: {end.error}")
        self._sampler.running.clear()
        _give_back()
        plain = getattr(self._model.config, "quantization_config", None) is None
        exact = plain and self._model.dtype == torch.float32
        difference = alike.wrong(self._trials, exact)
        if difference and self._strict:
            _end(f"batch_differs: {difference}")
        print(difference or "compared with the model itself", file=sys.stderr, flush=True)

    def _tell(self, message: Messages | Loaded) -> None:
        with self._telling:
            self._front.send(message)

    def _listen(self) -> None:
        """Takes requests and cancellations until the front is gone."""
        while True:
            try:
                number, ask = self._front.recv()
            except (EOFError, OSError):
                os._exit(0)
            try:
                if ask is None:
                    self._leave(number)
                else:
                    self._take(number, ask)
            except Exception as error:  # noqa: BLE001 - one request's trouble is not the others'
                self._tell([(number, f"{type(error).__name__}: {error}")])

    def _take(self, number: int, ask: Ask) -> None:
        generator = None
        if ask.sampling.seed is not None:
            generator = torch.Generator(self._model.device).manual_seed(ask.sampling.seed)
        name, running = str(number), Running(number, ask.prompt, ask.sampling, generator)
        if ask.sampling.grammar:
            running.matcher = self._match(ask.sampling.grammar, ask.ends)
        self._sampler.running[name] = running
        self._manager.add_request(
            ask.prompt, name, max_new_tokens=ask.most, eos_token_id=ask.ends or -1
        )

    def _match(self, grammar: str, ends: list[int]) -> LLMatcher:
        """Follows the grammar. The first one waits for the vocabulary, for a second."""
        end = ends[0] if ends else -1
        if end not in self._vocabularies:
            tokenizer = AutoTokenizer.from_pretrained(self._path)
            width = max(self._vocabulary, len(tokenizer))
            eos = None if end < 0 else end
            self._vocabularies[end] = llguidance.hf.from_tokenizer(tokenizer, width, eos)
        return LLMatcher(self._vocabularies[end], grammar, log_level=0)

    def _leave(self, number: int) -> None:
        if self._sampler.running.pop(str(number), None) is not None:
            self._manager.cancel_request(str(number))


def main() -> None:
    """Loads the model of the first argument, and serves at the connection of the second."""
    # The front gets the signal, ends, and this process ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    batch = Batch(json.loads(sys.argv[1]), Connection(int(sys.argv[2])))
    batch.run()
    _end("the batch has ended")


def _end(reason: str) -> NoReturn:
    """Ends the process without waiting for the batch's thread, as the interpreter would."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
