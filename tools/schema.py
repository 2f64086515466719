"""Writes specs/schema.json from the spec's types; with --check, only says whether it is current.

python tools/schema.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from paddock.registry.schema import schema_text

TARGET = Path(__file__).parent.parent / "specs" / "schema.json"


def main() -> int:
    """Returns the exit code: 1 where --check finds the file out of date."""
    current = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if current == schema_text():
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{TARGET} is out of date; write it with: python tools/schema.py", file=sys.stderr)
        return 1
    TARGET.write_text(schema_text(), "utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
