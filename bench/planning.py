"""Times plans on many nodes: no engine is asked, and no hub.

    python -m bench.planning [--nodes 16] [--runs 20] [MODEL …]

The nodes are this machine with every engine, each with a little less memory than the one before; on
half of them lie weights that the others lack. The catalogue has 1,000 specs beside Paddock's own.
Times are of runs in one process after one that is not counted: a gateway has imported all it needs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from paddock.engines.base import Host
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.planning.assumed import with_all_engines
from paddock.launcher.planning.plan import LaunchRequest
from paddock.launcher.planning.resolve import resolve
from paddock.registry.catalog import Catalog, specs_root

MODELS = ("mixtral-instruct-v0.1", "llama-3.1-instruct", "qwen2.5-instruct", "qwen3")
SPECS = 1000


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        catalog = many_specs(Path(scratch))
        hosts = many_nodes(Path(scratch), options.nodes)
        print(f"| {options.nodes} nodes | variants | median ms | worst ms |")
        print("| --- | --: | --: | --: |")
        for name in options.models:
            request = LaunchRequest(model_name=name)
            resolve(request, catalog, hosts)
            times = []
            for _ in range(options.runs):
                start = time.perf_counter()
                resolve(request, catalog, hosts)
                times.append(1e3 * (time.perf_counter() - start))
            variants = len(catalog.lookup(name).variants)
            print(f"| {name} | {variants} | {statistics.median(times):.1f} | {max(times):.1f} |")


def many_specs(folder: Path) -> Catalog:
    """Paddock's own specs, and `SPECS` that differ from one of them by their names."""
    text = (specs_root() / "llm" / "mixtral-v0.1.yaml").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith(("name:", "aliases:"))]
    custom = folder / "specs" / "llm"
    custom.mkdir(parents=True)
    for number in range(SPECS):
        name = f"model-{number:04}-v0.1"
        (custom / f"{name}.yaml").write_text("\n".join([f"name: {name}", *lines]), "utf-8")
    return Catalog.load(custom=custom)


def many_nodes(home: Path, count: int) -> list[Host]:
    """Machines as this one, of which no two have just the same memory."""
    one = probe_host(home)
    nodes = [
        replace(
            one,
            node=f"{number:056x}",
            name=f"node-{number}",
            memory_total_bytes=one.memory_total_bytes - number * 4096,
            memory_free_bytes=one.memory_free_bytes - number * 10**7,
            memory_bandwidth=one.memory_bandwidth * (1 + number / 100),
            files=one.files if number % 2 else {},
        )
        for number in range(count)
    ]
    return with_all_engines(nodes)


if __name__ == "__main__":
    main()
