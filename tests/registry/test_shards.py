"""Names of weights in parts."""

from __future__ import annotations

import pytest

from paddock.registry.shards import shard_names, unsharded_name


def test_any_part_tells_all_of_them_in_order() -> None:
    """The folder and the name with odd characters stay as they are."""
    found = shard_names("q8/my model.v1-00002-of-00003.gguf")
    assert found == tuple(f"q8/my model.v1-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    assert unsharded_name(found[2]) == "q8/my model.v1.gguf"


@pytest.mark.parametrize(
    "name",
    [
        *("a.gguf", "a-00001-of-00000.gguf", "a-1-of-2.gguf", "a-00001-of-00002", "a.gguf-split-a"),
        *("-00001-of-00002.gguf", "a-00001-of-99999.gguf", ""),
    ],
)
def test_what_is_no_part_has_none(name: str) -> None:
    """Other numberings, and counts beyond belief, are plain names."""
    assert shard_names(name) == ()
