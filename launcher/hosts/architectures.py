"""Whether llama.cpp knows an architecture: it is asked before anything is downloaded.

It has no list that could be read. So it is given a file that names the architecture and has nothing
else: it refuses either the name, or the rest that is missing. The answer is kept by its version.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from paddock.engines import load_engine
from paddock.engines.base import UNKNOWN, Engine, Host, Serving
from paddock.launcher.hosts.environ import engine_environment
from paddock.registry.files import replace_file
from paddock.registry.formats import GGUF
from paddock.registry.settings import Settings
from paddock.registry.spec import ModelSpec

ENGINE = "llama.cpp"
SECONDS = 20.0
"""What it may take to refuse; it takes half a second."""


def with_unknown(host: Host, spec: ModelSpec, settings: Settings) -> Host:
    """The host, with the model's architecture noted as unknown if its llama.cpp does not know it.

    llama.cpp of this machine is asked. Only names as GGUF files have them are checked.
    """
    name = spec.architecture.name
    detection = host.engines.get(ENGINE, UNKNOWN)
    formats = {weights.format for weights in spec.weights}
    if name != name.casefold() or formats != {GGUF} or not detection.version:
        return host  # `MixtralForCausalLM` is no name of llama.cpp's
    if _knows(name, detection.version, settings):
        return host
    engines = {**host.engines, ENGINE: replace(detection, unknown=(name,))}
    return replace(host, engines=engines)


def _knows(name: str, version: str, settings: Settings) -> bool:
    path = settings.home / "cache" / "architectures.json"
    cached: dict[str, dict[str, bool]] = {}
    with suppress(OSError, ValueError):
        cached = json.loads(path.read_bytes())
    known = cached.get(version, {}).get(name)
    if known is None:
        known = _ask(load_engine(ENGINE), name)
        record = json.dumps({version: {**cached.get(version, {}), name: known}})
        with suppress(OSError):  # a folder that cannot be written: it is asked again
            replace_file(path, record)
    return known


def _ask(engine: Engine, name: str) -> bool:
    """Whether it refuses a file of this architecture for another reason than that."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "asking.gguf")
        weights.write_bytes(_header(name))
        options = engine.options.parse(engine.name, {"n_threads": "1"})
        serving = Serving(
            model_id="asking",
            weights=weights,
            port=1,  # it comes to no listening
            api_key="asking",
            context_length=256,
            slots=1,
            abilities=("generate",),
            options=options,
        )
        command = engine.command(serving)
        try:
            done = subprocess.run(
                command.argv,
                env=engine_environment(os.environ, command.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return True  # the launch will tell
    refusals = [one.pattern for one in engine.symptoms if one.cause == "unsupported_arch"]
    return not any(pattern.search(done.stdout) for pattern in refusals)


def _header(name: str) -> bytes:
    """A GGUF of version 3 without tensors, and one text among its metadata."""
    texts = [one.encode() for one in ("general.architecture", name)]
    key, value = (struct.pack("<Q", len(text)) + text for text in texts)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + key + struct.pack("<I", 8) + value
    return head + bytes(-len(head) % 32)
