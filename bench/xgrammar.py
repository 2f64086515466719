"""Schemas that pass Paddock's check for xgrammar: is each text of its grammars one of the schema's?

    PADDOCK_HOME=HOME python -m bench.xgrammar [--schemas 1000] [--first 0] [--texts 20]

It needs the vLLM that is installed in HOME, whose xgrammar compiles each schema as vLLM does. Texts
are drawn from the grammar alone, byte by byte, and validated. Schemas are those of
`tests/schemas.py`, and odd ones. It prints what was refused, and each violation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
from collections import Counter
from typing import Any

from jsonschema import Draft202012Validator

from bench.schemas import FORMATS
from paddock.engines import load_engine
from paddock.registry.errors import Refused
from paddock.server.dialects.schemas import make_standalone, write_grammar
from paddock.server.dialects.xgrammar import write_for_xgrammar
from tests.schemas import random_schema

DRAW = """
import json, random, sys
import xgrammar
vocabulary = [bytes([value]) for value in range(256)] + [b"<|end|>"]
tokens = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[256])
compiler = xgrammar.GrammarCompiler(tokens)
mask = xgrammar.allocate_token_bitmask(1, 257)
for line in sys.stdin:
    asked = json.loads(line)
    texts, fault = [], ""
    try:
        compiled = compiler.compile_json_schema(json.dumps(asked["schema"]), any_whitespace=False)
    except Exception as error:
        compiled, fault = None, str(error)
    for number in range(asked["texts"] if compiled else 0):
        chance, text = random.Random(number), bytearray()
        matcher = xgrammar.GrammarMatcher(compiled)
        while len(text) < 2000:
            matcher.fill_next_token_bitmask(mask)
            allowed = [n for n in range(257) if mask[0, n // 32] >> (n % 32) & 1]
            if 256 in allowed and (chance.random() < 0.3 or len(allowed) == 1):
                break
            plain = [n for n in allowed if 32 <= n < 127]
            ends = [n for n in plain if chr(n) in '"}]0123456789']
            some = ends if ends and chance.random() < 0.4 else plain or allowed
            token = chance.choice([n for n in some if n != 256] or allowed)
            if not matcher.accept_token(token) or token == 256:
                break
            text.append(token)
        else:
            continue
        texts.append(text.decode("utf-8", "replace"))
    print(json.dumps({"texts": texts, "fault": fault}), flush=True)
"""
PARTS: tuple[dict[str, Any], ...] = (
    {"type": "integer"},
    {"minimum": 3},
    {"type": "integer", "maximum": 5},
    {"type": ["integer", "string"], "minimum": 3, "minLength": 2},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
    {"type": "string"},
    {"maxLength": 2},
    {"type": "string", "pattern": "^a+$"},
    {"type": "string", "pattern": "b"},
    {"type": "string", "pattern": "^[^a-z]{2}$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "format": "uri"},
    {"enum": ["a", 2, None]},
    {"enum": [1.5, True]},
    {"const": {"a": [1, "x"]}},
    {"type": "null"},
    {"type": "boolean"},
    {"required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"]},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "object", "patternProperties": {"^x": {"type": "integer"}}},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
    {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 3},
    {"uniqueItems": True, "type": "array"},
    {"minProperties": 1, "type": "object"},
    {},
)


def odd_schema(seed: int) -> dict[str, Any]:
    """A schema of parts that are seldom put together."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    def part() -> dict[str, Any]:
        return dict(chance.choice(PARTS))

    kind = chance.randrange(6)
    if kind == 0:
        return {**part(), **part()}
    if kind == 1:
        return {
            chance.choice(("anyOf", "oneOf", "allOf")): [part(), part()],
            **chance.choice(PARTS),
        }
    if kind == 2:
        return {"allOf": [part()]}
    if kind == 3:
        return {"type": "object", "properties": {"a": part()}, **chance.choice(PARTS)}
    if kind == 4:
        items = {"items": part(), "prefixItems": [part()]}
        return {"type": "array", "maxItems": chance.randrange(4), **items}
    return {"$ref": "#/$defs/it", "$defs": {"it": part()}, **chance.choice(PARTS)}


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--texts", type=int, default=8)
    options = parser.parse_args()
    environment = load_engine("vLLM").environment
    installed = environment and environment.installed()
    if not installed:
        parser.error("vLLM is not installed in PADDOCK_HOME")
    seen: Counter[str] = Counter()
    argv = [str(installed.python), "-c", DRAW]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for seed in range(options.first, options.first + options.schemas):
            for make in (random_schema, odd_schema):
                schema = make(seed)
                try:
                    whole = make_standalone(schema, "schema")
                    write_grammar(whole, "schema", "vLLM")
                    whole = write_for_xgrammar(whole, "schema", "vLLM")
                except Refused:
                    seen["refused"] += 1
                    continue
                child.stdin.write(json.dumps({"schema": whole, "texts": options.texts}) + "\n")
                child.stdin.flush()
                answer = json.loads(child.stdout.readline())
                if answer["fault"]:
                    seen["xgrammar refuses it"] += 1
                    print("fault", json.dumps(schema), answer["fault"][:120].replace("\n", " "))
                check = Draft202012Validator(schema, format_checker=FORMATS)
                for text in answer["texts"]:
                    valid = False
                    with contextlib.suppress(ValueError):
                        valid = check.is_valid(json.loads(text))
                    seen["texts" if valid else "violations"] += 1
                    if not valid:
                        print("violation", json.dumps(schema), text)
                        break
                seen["schemas"] += 1
    for kind, number in seen.most_common():
        print(f"{number:7} {kind}")


if __name__ == "__main__":
    main()
