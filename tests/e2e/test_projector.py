"""Pictures: a projector beside a GGUF, from a hub or from disk, in front of real llama.cpp."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock
from tests.fakes import HubServer
from tests.projector import PATCHES, SIDE, write_projector

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
FILE, SEES = "seer.Q4_K_M.gguf", "mmproj-F16.gguf"


@pytest.fixture
def hub(empty_hub: HubServer, tmp_path: Path) -> HubServer:
    """A hub with a model that sees."""
    write_projector(tmp_path / SEES)
    empty_hub.repos["us/seer-GGUF"] = {
        FILE: TINY.read_bytes(),
        SEES: (tmp_path / SEES).read_bytes(),
        "mmproj-F32.gguf": b"another",
    }
    return empty_hub


@pytest.fixture
def seer(here: Paddock, tmp_path: Path) -> Paddock:
    """The command line, which knows the model."""
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    source = {
        "hub": "huggingface",
        "id": "us/seer-GGUF",
        "file_template": "seer.{quantization}.gguf",
    }
    spec |= {"name": "seer", "aliases": [], "recommended": []}
    spec["abilities"] = ["generate", "chat", "vision"]
    spec["weights"] = [
        {"format": "ggufv2", "size": spec["weights"][0]["size"], "quantizations": ["Q4_K_M"],
         "engines": ["llama.cpp"], "sources": [source], "projectors": [SEES, "mmproj-F32.gguf"]}
    ]  # fmt: skip
    (tmp_path / "seer.yaml").write_text(yaml.safe_dump(spec))
    here.ok("register", "--file", str(tmp_path / "seer.yaml"))
    return here


def picture() -> str:
    """A red square."""
    rows = b"".join(b"\0" + bytes([255, 0, 0]) * SIDE for _ in range(SIDE))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def tokens(here: Paddock, uid: str, *, with_picture: bool) -> int:
    """How many tokens a question has."""
    client = openai.OpenAI(base_url=f"{here.record['endpoint']}/v1", api_key="none", max_retries=0)
    content: list[Any] = [{"type": "text", "text": "What is this?"}]
    if with_picture:
        content.append({"type": "image_url", "image_url": {"url": picture()}})
    asked: Any = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model=uid, messages=asked, max_tokens=2)
    assert answer.usage is not None
    return answer.usage.prompt_tokens


def test_projector_that_is_asked_for_comes_and_sees(seer: Paddock, hub: HubServer) -> None:
    """Without it the model has no vision and says so; with it a picture is so many tokens."""
    seer.ok("launch", "seer", "-u", "blind")
    assert set(hub.files()) == {FILE}
    with pytest.raises(openai.BadRequestError, match="vision"):
        tokens(seer, "blind", with_picture=True)
    seer.ok("launch", "seer", "-u", "seer", "--multimodal-projector", "MMPROJ-f16.gguf")
    assert set(hub.files()) == {FILE, SEES}
    plain = tokens(seer, "seer", with_picture=False)
    assert tokens(seer, "seer", with_picture=True) == plain + PATCHES
    hub.asked.clear()
    seer.ok("launch", "seer", "-u", "again", "--multimodal-projector", SEES, "--offline")
    assert hub.asked == []
    wrong = seer.run("launch", "seer", "-u", "x", "--multimodal-projector", "mmproj-F61.gguf")
    assert wrong.returncode == 2
    assert f"did you mean {SEES}" in wrong.stderr


def test_projector_on_disk_and_by_a_reference(
    here: Paddock, hub: HubServer, tmp_path: Path
) -> None:
    """Any GGUF can be given one; a pull brings what it names, and a repository tells its own."""
    path = str(tmp_path / SEES)
    here.ok("launch", "tiny-mixtral", "-q", "Q4_K_M", "-u", "disk", "--multimodal-projector", path)
    plain = tokens(here, "disk", with_picture=False)
    assert tokens(here, "disk", with_picture=True) == plain + PATCHES
    here.ok("pull", "hf:us/seer-GGUF", "--multimodal-projector", SEES)
    assert set(hub.files()) >= {FILE, SEES}
    here.ok("launch", "hf:us/seer-GGUF", "-u", "found", "--multimodal-projector", SEES)
    assert tokens(here, "found", with_picture=True) == plain + PATCHES
    for words, says in (
        (("tiny-mixtral", "-q", "Q4_K_M", "--multimodal-projector", "x.gguf"), "absolute path"),
        (("tiny-mixtral", "-q", "Q4_K_M", "--multimodal-projector", "/none.gguf"), "no such file"),
    ):
        refused = here.run("launch", *words, "-u", "x")
        assert refused.returncode == 2
        assert says in refused.stderr
