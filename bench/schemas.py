"""Random schemas against a served model: is each answer one of its schema's?

    python -m bench.schemas [--schemas 1000] [--first 0]
    PADDOCK_HOME=HOME python -m bench.schemas --transformers | --vllm
    PADDOCK_HOME=HOME python -m bench.schemas --speed

A home of its own, tiny-mixtral at temperature 1.2. Each schema is one of `tests/schemas.py`. An
answer that was cut off by its length is not counted; what is refused must be a 400 that names the
place. It prints what was answered, and each violation; and how long a schema takes to be checked.
With --transformers or --vllm it is the engine that is installed in HOME; with --speed it is
tokens/s of 8 streams there, with a schema and without, by turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from bench.main_job import PADDOCK, run
from paddock.client import Client
from paddock.engines import load_engine
from paddock.engines.transformers import TransformersOptions
from paddock.registry.catalog import specs_root
from paddock.registry.errors import GatewayError, Refused
from paddock.server.dialects.schemas import make_standalone, write_grammar
from tests.engines.child import Child, serving
from tests.schemas import random_schema

STREAMS, TOKENS, TURNS = 8, 200, 7
FORMATS = FormatChecker([name for name in FormatChecker.checkers if name != "time"])
"""Its check of `time` takes no fraction of a second with one digit, which RFC 3339 allows."""


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if options.speed:
        compare_speed()
        return
    seeds = range(options.first, options.first + options.schemas)
    with tempfile.TemporaryDirectory() as scratch:
        home, variant = scratch, ["-q", "Q4_K_M"]
        if options.transformers or options.vllm:
            home, engine = os.environ["PADDOCK_HOME"], "vLLM" if options.vllm else "Transformers"
            variant = ["-f", "pytorch", "-q", "none", "-en", engine, "--dtype", "float32"]
        environ = {**os.environ, "PADDOCK_HOME": home, "PADDOCK_PORT": "0"}
        run([*PADDOCK, "launch", "tiny-mixtral", *variant], environ)
        try:
            record = json.loads(Path(home, "gateway.json").read_text("utf-8"))
            client = Client(record["endpoint"], record["key"])
            for kind, number in count(client, seeds).most_common():
                print(f"{number:6} {kind}")
        finally:
            run([*PADDOCK, "stop"], environ)
    times = sorted(map(check_seconds, seeds))
    median, worst = 1e3 * statistics.median(times), 1e3 * times[-1]
    print(f"checking one: median {median:.2f} ms, worst {worst:.2f} ms")


def compare_speed() -> None:
    """Prints the medians, and their ratio."""
    schema = {"type": "string", "minLength": 2000}
    grammar = write_grammar(schema, "schema", "Transformers")
    weights = specs_root() / "weights" / "tiny-mixtral" / "pytorch" / "none"
    wanted = serving(TransformersOptions(dtype="float32"), weights=weights, slots=STREAMS)
    rates: dict[str, list[float]] = {"without": [], "with a schema": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        Child(load_engine("Transformers"), wanted, Path(folder, "log")) as child,
        ThreadPoolExecutor(STREAMS) as threads,
    ):
        child.await_health()
        for turn in range(TURNS + 1):
            for name, fields in (("without", {}), ("with a schema", {"grammar": grammar})):
                body = {"prompt": "The old lion", "max_tokens": TOKENS, "temperature": 1.0}
                body |= {"ignore_eos": not fields, **fields}
                start = time.perf_counter()
                ask = partial(child.post, "/v1/completions", body)
                answers = [one.result() for one in [threads.submit(ask) for _ in range(STREAMS)]]
                seconds = time.perf_counter() - start
                made = sum(answer["usage"]["completion_tokens"] for _, answer in answers)
                if turn:  # the first loads the vocabulary
                    rates[name].append(made / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{rate:8.0f} tokens/s {name}")
    print(f"{medians['with a schema'] / medians['without']:8.2f}")


def count(client: Client, seeds: Iterable[int]) -> Counter[str]:
    """What came of each schema; violations are printed."""
    with ThreadPoolExecutor(4) as threads:
        return Counter(threads.map(lambda seed: ask(client, seed), seeds))


def ask(client: Client, seed: int) -> str:
    """What a chat with the schema of this seed came to."""
    schema = random_schema(seed)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = {"response_format": form, "temperature": 1.2, "seed": seed, "max_tokens": 200}
    try:
        answer = client.chat("tiny-mixtral", [{"role": "user", "content": "Tell me."}], **fields)
    except GatewayError as error:
        return f"refused ({error.status})"
    choice = answer["choices"][0]
    if choice["finish_reason"] == "length":
        return "cut off"
    try:
        validator = Draft202012Validator(schema, format_checker=FORMATS)
        validator.validate(json.loads(choice["message"]["content"]))
    except (ValueError, ValidationError) as error:
        print(seed, json.dumps(schema), repr(choice["message"]["content"]), str(error)[:100])
        return "VIOLATION"
    return "honoured"


def check_seconds(seed: int) -> float:
    """How long it takes to check a schema that was not seen before."""
    schema = random_schema(seed) | {"title": f"{time.time_ns()}"}
    start = time.perf_counter()
    with contextlib.suppress(Refused):
        write_grammar(make_standalone(schema, "schema"), "schema", "llama.cpp")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
