"""A GGUF at a path that is another model than its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paddock.launcher.fleet.planner import Planner
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest
from paddock.registry.catalog import specs_root
from paddock.registry.errors import BadValue
from paddock.registry.gguf import read_gguf, read_shape
from paddock.registry.settings import read_settings
from tests.headers import HEADERS, write_header

TINY = specs_root() / "weights/tiny-mixtral/ggufv2/tiny-mixtral.Q4_K_M.gguf"


async def plan(home: Path, name: str, path: Path, **more: bool) -> LaunchPlan:
    planner = Planner.alone(read_settings(environ={"PADDOCK_HOME": str(home)}))
    asked = {"format": "ggufv2", "quantization": "Q4_K_M", "model_path": str(path)}
    return await planner.plan(LaunchRequest.parse(model_name=name, **asked, **more))


async def test_file_of_another_model_is_refused(home: Path) -> None:
    """With both shapes and the command that launches what it is; `force` takes it all the same."""
    assert (await plan(home, "tiny-mixtral", TINY)).weights.hub == "path"
    says = r"its header says llama, \d+ layers \d+ wide; mixtral-v0.1 has 32 layers 4096 wide; "
    with pytest.raises(BadValue, match=f"{says}.*paddock launch {re.escape(str(TINY))}"):
        await plan(home, "mixtral-v0.1", TINY)
    assert (await plan(home, "mixtral-v0.1", TINY, force=True)).weights.here


async def test_what_cannot_be_told_is_not_refused(home: Path, tmp_path: Path) -> None:
    """A broken header is the launch's to tell."""
    broken = tmp_path / "m.Q4_K_M.gguf"
    broken.write_bytes(b"GGUF")
    assert (await plan(home, "mixtral-v0.1", broken)).weights.here


@pytest.mark.parametrize("name", HEADERS)
def test_shape_is_that_of_the_whole_header(name: str, tmp_path: Path) -> None:
    """Though only its beginning is read."""
    path = write_header(tmp_path / "m.gguf", HEADERS[name])
    shape, full = read_shape(path), read_gguf(path).metadata
    assert shape.architecture == full["general.architecture"]
    assert shape.layers == full[f"{shape.architecture}.block_count"]
    assert shape.hidden_size == full[f"{shape.architecture}.embedding_length"]
