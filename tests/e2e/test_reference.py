"""Models without a spec, by the command line: shown, launched, refused, and launched offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paddock.registry.catalog import specs_root
from paddock.registry.reader import parse_spec
from tests.conftest import Paddock
from tests.fakes import COMMIT, Fault, HubServer, model_header
from tests.splitgguf import split

REPO = "TheBloke/Mixtral-8x7B-v0.1-GGUF"
NAME = "Mixtral-8x7B-v0.1-GGUF"
QUANTIZATIONS = ("Q2_K", "Q4_K_M", "Q8_0")
FILE = "mixtral-8x7b-v0.1.Q4_K_M.gguf"
TINY = specs_root() / "weights" / "tiny-mixtral"
ASKED = ("generate", "-u", "told", "--temperature", "0", "--max-tokens", "6", "The old elephant")


def tiny_gguf(quantization: str) -> bytes:
    return (TINY / "ggufv2" / f"tiny-mixtral.{quantization}.gguf").read_bytes()


@pytest.fixture
def hub(empty_hub: HubServer) -> HubServer:
    """A hub with a repository that no spec names, its files replaced by tiny ones."""
    empty_hub.repos[REPO] = {
        f"mixtral-8x7b-v0.1.{quantization}.gguf": tiny_gguf(quantization)
        for quantization in QUANTIZATIONS
    }
    pytorch = {path.name: path.read_bytes() for path in (TINY / "pytorch/none").iterdir()}
    empty_hub.repos["keeper/code"] = {**pytorch, "modeling_zoo.py": b"print()"}
    return empty_hub


def test_a_model_without_a_spec_is_launched_from_either_hub_and_from_disk(
    here: Paddock, hub: HubServer, tmp_path: Path
) -> None:
    """By hub and id, by address and by path, and each continues the same text alike."""
    told = set()
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf("Q4_K_M"))
    first, *more = split(tmp_path / "tiny.gguf", tmp_path / "tiny.Q4_K_M.gguf", 12)
    hub.repos["keeper/split"] = {part.name: part.read_bytes() for part in (first, *more)}
    for reference, hub_name in (
        (f"hf:{REPO}", "huggingface"),
        (f"ms:{REPO}", "modelscope"),
        (f"{hub.endpoint}/{REPO}/blob/main/{FILE}", "huggingface"),
        (f"{hub.endpoint}/models/{REPO}", "modelscope"),
        (f"{tmp_path}/tiny.gguf", "path"),
        (str(first), "path"),
        ("hf:keeper/split", "huggingface"),
    ):
        done = here.run("launch", reference, "--quantization", "Q4_K_M", "-u", "told", "--json")
        assert done.returncode == 0, (reference, done.stderr)
        plan = json.loads(done.stdout)["plan"]
        assert plan["weights"]["hub"] == hub_name
        assert plan["abilities"] == ["generate", "chat"]
        assert plan["size"] == "0_0041"
        for line in (plan["derived"]["reference"], plan["derived"]["commit"], "context 2048"):
            assert line in done.stderr
        told.add(here.ok(*ASKED))
        here.ok("terminate", "-u", "told")
    assert len(told) == 1
    assert {name for name in hub.files() if name.startswith("mixtral")} == {
        FILE,
        "mixtral-8x7b-v0.1.Q2_K.gguf",  # its header alone
    }


def test_what_was_launched_once_is_launched_without_a_network(
    alone: Paddock, hub: HubServer
) -> None:
    """With `--offline` not one request is made; a hub that is down is done without."""
    launch = ("launch", f"hf:{REPO}", "-q", "Q4_K_M")
    assert alone.ok(*launch).strip() == NAME
    (row,) = alone.json("cache", "list")["list"]
    assert (row["model_name"], row["quantization"]) == (NAME, "Q4_K_M")
    text = alone.ok("run", f"hf:{REPO}", "The old elephant", "--max-tokens", "3")
    assert text.strip()
    again = alone.run(*launch)
    assert again.returncode == 2
    assert f"paddock terminate --model-uid {NAME}" in again.stderr
    alone.ok("terminate", "-u", NAME)
    hub.asked.clear()
    alone.ok(*launch, "--offline")
    assert hub.asked == []
    alone.ok("terminate", "-u", NAME)
    refused = alone.run("launch", "hf:keeper/code", "--offline")
    assert refused.returncode == 4
    assert "--offline was asked for" in refused.stderr
    alone.ok("stop")
    alone.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    done = alone.run(*launch)
    assert done.returncode == 0, done.stderr
    assert "as it was when the hub answered" in done.stderr
    alone.ok("terminate", "-u", NAME)
    alone.ok("cache", "remove", NAME, "-q", "Q4_K_M")
    assert alone.json("cache", "list")["list"] == []


def test_a_derived_spec_is_shown_and_registered_as_it_is(
    alone: Paddock, hub: HubServer, tmp_path: Path
) -> None:
    """What `show` prints `register` takes, with and without a gateway, and for built-in names."""
    shown = alone.ok("show", f"hf:{REPO}")
    assert not (alone.home / "gateway.json").exists()
    assert alone.ok("show", f"hf:{REPO}") == shown
    path = tmp_path / "mine.yaml"
    path.write_text(shown)
    assert alone.ok("register", "--file", str(path)).strip() == NAME
    by_gateway = alone.json("show", f"hf:{REPO}")
    assert by_gateway["yaml"].rstrip("\n") == shown.rstrip("\n")
    assert (by_gateway["reference"], by_gateway["commit"]) == (f"hf:{REPO}", COMMIT)
    assert by_gateway["consent"] == {}
    assert alone.json("show", NAME)["spec"] == by_gateway["spec"]
    assert alone.json("launch", NAME, "-q", "Q2_K", "--dry-run")["weights"]["revision"] == COMMIT
    built_in = alone.json("show", "tiny-mixtral")
    assert built_in["commit"] is None
    spec = parse_spec(built_in["yaml"].encode(), "x")
    assert spec.model_dump(mode="json", exclude_defaults=True) == built_in["spec"]
    path.write_text(built_in["yaml"].replace("name: tiny-mixtral", "name: tinier"))
    assert alone.ok("register", "--file", str(path)).strip() == "tinier"
    hub.repos["keeper/bert"] = {"bert.F16.gguf": model_header("bert", pooling_type=1)}
    path.write_text(alone.ok("show", "hf:keeper/bert"))
    assert alone.json("register", "--file", str(path))["model_type"] == "embedding"
    missing = alone.run("show", "tiny-mixtrall")
    assert missing.returncode == 2
    assert "did you mean tiny-mixtral" in missing.stderr


def test_a_dry_run_and_an_estimate_derive_too(alone: Paddock, hub: HubServer) -> None:
    """Without a gateway, and without a byte of the weights."""
    done = alone.run("launch", f"hf:{REPO}", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"derived    {NAME} from hf:{REPO}" in done.stdout
    assert f"commit     {COMMIT}" in done.stdout
    assert "note       released: repositories do not tell" in done.stdout
    rows = alone.json("estimate", f"hf:{REPO}", "-c", "2048")["rows"]
    assert [row["quantization"] for row in rows] == list(QUANTIZATIONS)
    assert not (alone.home / "gateway.json").exists()
    assert hub.sent < 300_000
    refused = alone.run("launch", "hf:keeper/code", "--dry-run")
    assert refused.returncode == 2
    assert f"--trust {COMMIT}" in refused.stderr


def test_code_comes_with_consent_alone(here: Paddock, hub: HubServer) -> None:
    """The refusal has the reason and the flag; the flag is good for that commit."""
    refused = here.run("pull", "hf:keeper/code")
    assert refused.returncode == 2
    assert "modeling_zoo.py" in refused.stderr
    assert hub.files().count("model.safetensors") == 0
    wrong = here.run("pull", "hf:keeper/code", "--trust", "f" * 40)
    assert wrong.returncode == 2
    assert COMMIT in wrong.stderr
    assert "f" * 40 in wrong.stderr
    folder = Path(here.ok("pull", "hf:keeper/code", "--trust", COMMIT).strip())
    assert (folder / "modeling_zoo.py").read_bytes() == b"print()"
    here.ok("pull", "hf:keeper/code")
    hub.commits["keeper/code"] = "e" * 40
    moved = here.run("pull", "hf:keeper/code")
    assert moved.returncode == 2
    assert f"--trust {'e' * 40}" in moved.stderr
    launched = here.run("launch", "hf:keeper/code", "--trust", "e" * 40)
    assert launched.returncode == 4  # agreed to, and no engine here serves the format
    assert "no engine can serve" in launched.stderr


@pytest.mark.parametrize(
    ("reference", "fault", "code", "says"),
    [
        ("hf:keeper/none", None, 4, "has no keeper/none at main"),
        ("hf:keeper/code", Fault(403, {"X-Error-Code": "GatedRepo"}), 4, "is gated: ask for"),
        ("hf:keeper", None, 2, "is not owner/name"),
        ("https://example.com/a/b", None, 2, "at none of the hubs' hosts"),
        ("hf:keeper/empty", None, 2, "has no file of a model"),
        ("hf:keeper/lion", None, 2, "has no llama.context_length"),
    ],
)
def test_what_cannot_be_launched_says_why(
    here: Paddock, hub: HubServer, reference: str, fault: Fault | None, code: int, says: str
) -> None:
    """Refused with 2; what a hub would not give with 4, as for models with a spec."""
    hub.repos["keeper/empty"] = {"README.md": b""}
    hub.repos["keeper/lion"] = {"lion.Q4_0.gguf": model_header(context_length=None)}
    if fault:
        hub.fail("api", *[fault] * 20)
    for command in ("launch", "show", "pull"):
        done = here.run(command, reference)
        assert (done.returncode, command) == (code, command), done.stderr
        assert says in done.stderr
    assert here.json("list") == []
