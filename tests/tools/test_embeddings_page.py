"""docs/embeddings.md has every field that is taken, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from paddock.server.dialects.inputs import CUT_FIELDS, PROMPT_FIELDS, SIZE_FIELDS

PAGE = Path(__file__).parents[2] / "docs" / "embeddings.md"


def test_the_table_has_every_field() -> None:
    """By the first column of the table of fields."""
    section = PAGE.read_text().split("## Fields")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = [name for cell in rows for name in re.findall(r"`([a-z_]+)`", cell)]
    assert sorted(listed) == sorted((*CUT_FIELDS, *PROMPT_FIELDS, *SIZE_FIELDS))
