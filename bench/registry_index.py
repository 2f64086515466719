"""Times the catalog with many specs: a compiled index beside parsing the YAML.

    python bench/registry_index.py [--specs 1000] [--runs 15]

Every figure is from new processes, with the files in the page cache; the table gives the median
and the worst of the runs. "load" is `Catalog.load` alone; "import and load" adds the import of
`paddock.registry.catalog`; lookups are of names not looked up before.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from paddock.registry.catalog import specs_root

PROBE = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from paddock.registry.catalog import Catalog
from paddock.registry.errors import UnknownName
imported = time.perf_counter()
folder, index, names = Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, sys.argv[3:]
catalog = Catalog.load([folder], index)
loaded = time.perf_counter()
assert not catalog.problems, catalog.problems[0]
heavy = [name for name in ("pydantic", "yaml") if name in sys.modules]
catalog.lookup(names[0])
first = time.perf_counter()
for name in names[1:]:
    catalog.lookup(name)
later = time.perf_counter()
for name in names:
    try:
        catalog.lookup(name + "-nope")
    except UnknownName:
        pass
unknown = time.perf_counter()
print(json.dumps({
    "import and load": loaded - start,
    "load": loaded - imported,
    "first lookup": first - loaded,
    "a later lookup": (later - first) / (len(names) - 1),
    "an unknown name": (unknown - later) / len(names),
    "heavy": heavy,
}))
"""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--specs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()

    template = (specs_root() / "llm" / "mixtral-v0.1.yaml").read_text("utf-8")
    lines = [line for line in template.splitlines() if not line.startswith(("name:", "aliases:"))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "llm")
        folder.mkdir()
        for number in range(options.specs):
            head = [f"name: model-{number:04}-v0.1", f"aliases: [alias-{number:04}]"]
            Path(folder, f"model-{number:04}.yaml").write_text("\n".join([*head, *lines]), "utf-8")
        index = str(Path(scratch, "catalog.index"))
        step = max(1, options.specs // 20)
        names = [f"MODEL-{number:04}-v0.1" for number in range(0, options.specs, step)]

        print(f"{options.specs} specs; Python {platform.python_version()}, {platform.machine()}")
        compiling = probe(folder, index, names)
        print(
            f"index written: {compiling['load'] * 1e3:.0f} ms, {Path(index).stat().st_size} bytes"
        )
        runs = [probe(folder, index, names) for _ in range(options.runs)]
    imported = sorted({name for run in runs for name in run.pop("heavy")})
    print(
        f"imported by a load from the index: {', '.join(imported) or 'neither pydantic nor yaml'}"
    )
    print(f"{'from the index':<18}{'median ms':>10}{'worst ms':>10}")
    for figure in runs[0]:
        values = [run[figure] * 1e3 for run in runs]
        print(f"{figure:<18}{statistics.median(values):>10.2f}{max(values):>10.2f}")
    print(f"again: python bench/registry_index.py --specs {options.specs} --runs {options.runs}")


def probe(folder: Path, index: str, names: list[str]) -> dict:
    """One new process's times, in seconds."""
    command = [sys.executable, "-c", PROBE, str(folder), index, *names]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
