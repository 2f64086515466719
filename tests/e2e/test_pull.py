"""Pulls and launches from a hub on loopback, by the command line and real clients."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from paddock.launcher.hosts import processes
from paddock.registry.catalog import specs_root
from paddock.registry.errors import GatewayError
from tests.conftest import Paddock
from tests.e2e.terminal import converse
from tests.fakes import Fault, HubServer
from tests.launcher.weights.test_hubs import until
from tests.splitgguf import split

MIXTRAL = "TheBloke/Mixtral-8x7B-v0.1-GGUF"
QUANTIZATIONS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0")
FILE = "mixtral-8x7b-v0.1.Q4_K_M.gguf"
VARIANT = ("--model-format", "ggufv2", "--quantization", "Q4_K_M")
TINY = specs_root() / "weights" / "tiny-mixtral"


def tiny_gguf(quantization: str) -> bytes:
    return (TINY / "ggufv2" / f"tiny-mixtral.{quantization}.gguf").read_bytes()


@pytest.fixture
def hub(empty_hub: HubServer) -> HubServer:
    """A hub with Mixtral's repository, its eight files replaced by tiny ones."""
    empty_hub.repos[MIXTRAL] = {
        f"mixtral-8x7b-v0.1.{quantization}.gguf": tiny_gguf(quantization)
        for quantization in QUANTIZATIONS
    }
    return empty_hub


def test_the_documented_launch_downloads_checks_and_serves(here: Paddock, hub: HubServer) -> None:
    """Mixtral's own spec and command line: the one file of eight comes, and answers by its name."""
    launched = here.json("launch", "--model-name", "mixtral-v0.1", *VARIANT)
    assert launched["model_uid"] == "mixtral-v0.1"
    assert set(hub.files()) == {FILE}
    text = here.ok("generate", "-u", "mixtral-v0.1", "The old elephant", "--max-tokens", "5")
    assert text.strip()
    (row,) = here.json("cache", "list")["list"]
    assert (row["model_name"], row["quantization"]) == ("mixtral-v0.1", "Q4_K_M")
    assert Path(row["path"]).read_bytes() == tiny_gguf("Q4_K_M")
    progress = here.client().progress("mixtral-v0.1")
    assert progress["total_bytes"] == len(tiny_gguf("Q4_K_M"))
    assert [file["name"] for file in progress["download_files"]] == [FILE]
    here.ok("terminate", "-u", "mixtral-v0.1")
    hub.asked.clear()
    missing = here.run(
        "launch", "mixtral-v0.1", "-f", "ggufv2", "-q", "Q2_K", "-u", "x", "--offline"
    )
    assert missing.returncode == 4
    assert "is not cached, and --offline" in missing.stderr
    plan = here.json("launch", "--model-name", "mixtral-v0.1", *VARIANT, "--dry-run")
    assert (plan["weights"]["here"], plan["weights"]["size_bytes"]) == (
        True,
        len(tiny_gguf("Q4_K_M")),
    )
    here.ok("launch", "--model-name", "mixtral-v0.1", *VARIANT, "--offline")
    assert hub.asked == []
    refused = here.run("cache", "remove", "mixtral-v0.1")
    assert refused.returncode == 2
    assert "paddock terminate" in refused.stderr


def test_the_cache_is_checked_counted_and_removed(here: Paddock, hub: HubServer) -> None:
    """`verify` finds changed bytes, the next pull mends them, and `remove` leaves nothing."""
    path = Path(here.ok("pull", "mixtral-v0.1", *VARIANT).strip()).resolve()
    assert "whole" in here.ok("cache", "verify")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    broken = here.run("cache", "verify", "mixtral-v0.1", "--json")
    assert broken.returncode == 1
    assert [file["whole"] for file in json.loads(broken.stdout)["files"]] == [False]
    here.ok("pull", "mixtral-v0.1", *VARIANT)
    assert path.read_bytes() == tiny_gguf("Q4_K_M")
    other = here.home / "hf" / "hub" / "models--somebody--else" / "snapshots" / ("0" * 40)
    other.mkdir(parents=True)
    (other.parent.parent / "refs").mkdir()
    (other / "config.json").write_text("{}")
    found = here.json("cache", "list")
    assert [row["checked"] for row in found["list"]] == [True]
    assert [row["id"] for row in found["repositories"]] == ["somebody/else"]
    assert here.json("cache", "du")["total_bytes"] == len(tiny_gguf("Q4_K_M")) + 2
    assert "not cached" in here.run("cache", "remove", "mixtral-v0.1", "-q", "Q8_0").stderr
    here.ok("cache", "remove", "mixtral-v0.1")
    assert not path.exists()
    assert here.json("cache", "list")["list"] == []


def test_a_pull_brings_the_weights_and_nothing_else(here: Paddock, hub: HubServer) -> None:
    """It prints the path, its JSON has all of it, and a second one asks nobody."""
    done = here.run("pull", "mixtral-v0.1", *VARIANT)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.read_bytes() == tiny_gguf("Q4_K_M")
    assert "checked" in done.stderr
    assert hub.files() == [FILE]
    hub.asked.clear()
    found = here.json("pull", "mixtral-v0.1", *VARIANT)
    assert (found["state"], found["path"]) == ("done", str(path))
    assert hub.asked == []
    assert here.json("list") == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault(403, {"X-Error-Code": "GatedRepo"}), "gated_repo"),
        (Fault(wrong=True), "checksum_mismatch"),
        (Fault(429, {"Retry-After": "9999"}), "rate_limited"),
    ],
)
def test_a_pull_that_fails_says_why(
    here: Paddock, hub: HubServer, fault: Fault, cause: str
) -> None:
    """Exit code 4 with the cause, and as JSON the whole diagnosis."""
    hub.fail(FILE, *[fault] * 4)
    done = here.run("pull", "mixtral-v0.1", *VARIANT)
    assert done.returncode == 4, done.stderr
    assert f"mixtral-v0.1: {cause}: " in done.stderr
    assert "try: paddock pull mixtral-v0.1" in done.stderr
    done = here.run("pull", "mixtral-v0.1", *VARIANT, "--json")
    assert json.loads(done.stdout)["error"]["diagnosis"]["cause"] == cause


def test_a_pull_is_called_off_with_ctrl_c_and_goes_on_later(here: Paddock, hub: HubServer) -> None:
    """Exit code 130; nothing of it runs, its part is kept, and the next pull is built on it."""
    hub.fail(FILE, Fault(after=500_000, how="hold"))
    pulling = here.start("pull", "mixtral-v0.1", *VARIANT)
    assert hub.held.wait(60)
    client = here.client()
    (pull,) = (one for one in client.pulls() if one["state"] == "downloading")
    until(lambda: client.show_pull(pull["id"])["came_bytes"] == 500_000)
    pulling.send_signal(signal.SIGINT)
    _, said = pulling.communicate(timeout=30)
    assert pulling.returncode == 130, said
    assert client.show_pull(pull["id"])["state"] == "cancelled"
    assert not [line for line in here.processes() if "jobs.run_pull" in line]
    here.ok("pull", "mixtral-v0.1", *VARIANT)
    assert hub.ranges == [(FILE, 0), (FILE, 500_000)]


def test_a_pull_goes_on_after_its_gateway_was_killed(alone: Paddock, hub: HubServer) -> None:
    """The next gateway shows it under its id and brings the rest; a launch meanwhile hurts none."""
    hub.fail(FILE, Fault(after=500_000, how="hold"))
    pulling = alone.start("pull", "mixtral-v0.1", *VARIANT)
    assert hub.held.wait(60)
    (pull,) = alone.client().pulls()
    until(lambda: alone.client().show_pull(pull["id"])["came_bytes"] == 500_000)
    alone.ok("launch", "tiny-mixtral", "-en", "echo")
    assert alone.client().pulls()[0]["state"] == "downloading"
    os.kill(alone.record["pid"], signal.SIGKILL)
    pulling.communicate(timeout=60)
    alone.ok("list")  # starts the next gateway
    until(lambda: [one for one in alone.client().pulls() if one["state"] == "done"])
    (done,) = alone.client().pulls()
    assert done["id"] == pull["id"]
    assert hub.ranges == [(FILE, 0), (FILE, 500_000)]
    until(lambda: not list((alone.home / "jobs").iterdir()))


def test_a_pull_outlives_a_restart_and_ends_with_stop(alone: Paddock, hub: HubServer) -> None:
    """SIGTERM hands it to the next gateway; `paddock stop` calls it off for good."""
    hub.fail(FILE, *[Fault(after=1000, how="hold")] * 2)
    pulling = alone.start("pull", "mixtral-v0.1", *VARIANT)
    assert hub.held.wait(60)
    (pull,) = alone.client().pulls()
    gateway = psutil.Process(alone.record["pid"])
    gateway.terminate()
    assert processes.gone(gateway, 30.0)
    pulling.communicate(timeout=60)
    alone.ok("list")  # starts the next gateway
    (again,) = alone.client().pulls()
    assert (again["id"], again["state"]) == (pull["id"], "downloading")
    alone.ok("stop")
    assert alone.processes() == []
    alone.ok("list")
    assert alone.client().pulls() == []


def test_two_pulls_of_the_same_are_one(here: Paddock, hub: HubServer) -> None:
    """The second gets the first one's id; calling it off twice is no error."""
    hub.fail(FILE, Fault(after=1000, how="hold"))
    body = {"model_name": "mixtral-v0.1", "model_format": "ggufv2", "quantization": "Q4_K_M"}
    here.ok("list")  # starts the gateway
    client = here.client()
    first, second = client.pull(**body), client.pull(**body)
    assert first["id"] == second["id"]
    for _ in range(2):
        assert client.cancel_pull(first["id"])["state"] == "cancelled"
    with pytest.raises(GatewayError, match="unknown pull"):
        client.show_pull("pull-none")
    with pytest.raises(GatewayError, match="hub"):
        client.pull(model_name="tiny-mixtral", model_path="/nowhere")


def test_a_launch_is_called_off_while_it_downloads(here: Paddock, hub: HubServer) -> None:
    """Its part stays, and nothing of it runs."""
    hold = Fault(after=300_000, how="hold")
    hub.fail(FILE, hold, hold)  # a look at the header comes first, and gives up
    here.ok("list")
    client = here.client()
    client.launch(wait=False, model_name="mixtral-v0.1", model_format="ggufv2",
                  quantization="Q4_K_M")  # fmt: skip
    assert hub.held.wait(60)

    def came() -> Any:
        return client.progress("mixtral-v0.1")["came_bytes"] == 300_000

    until(came)
    client.cancel("mixtral-v0.1")
    assert client.instances() == []
    (part,) = (here.home / "hf").rglob("*.incomplete")
    assert part.stat().st_size == 300_000


def test_weights_in_parts_are_one_model(here: Paddock, hub: HubServer, tmp_path: Path) -> None:
    """All parts come, from a hub or at a path, and llama.cpp serves them; a lack is named."""
    folder = tmp_path / "weights"
    folder.mkdir()
    whole = TINY / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
    paths = split(whole, folder / "tiny-Q4_K_M.gguf", 10)
    assert len(paths) == 3
    hub.repos["us/tiny-GGUF"] = {f"Q4_K_M/{path.name}": path.read_bytes() for path in paths}
    spec = yaml.safe_load((specs_root() / "llm" / "tiny-mixtral.yaml").read_text())
    template = "{quantization}/tiny-{quantization}.gguf"
    source = {"hub": "huggingface", "id": "us/tiny-GGUF", "file_template": template}
    spec |= {"name": "in-parts", "aliases": [], "recommended": []}
    spec["weights"] = [
        {"format": "ggufv2", "size": spec["weights"][0]["size"], "quantizations": ["Q4_K_M"],
         "engines": ["llama.cpp"], "sources": [source]}
    ]  # fmt: skip
    (tmp_path / "in-parts.yaml").write_text(yaml.safe_dump(spec, default_flow_style=False))
    here.ok("register", "--file", str(tmp_path / "in-parts.yaml"))
    pulled = here.json("pull", "in-parts")
    assert Path(pulled["path"]).name == paths[0].name
    assert set(hub.files()) == {f"Q4_K_M/{path.name}" for path in paths}
    hub.asked.clear()
    ask = ("The old elephant", "--max-tokens", "5", "--temperature", "0")
    here.ok("launch", "in-parts", "--offline")
    said = here.ok("generate", "-u", "in-parts", *ask)
    assert hub.asked == []
    by_path = ("launch", "tiny-mixtral", "--model-path", str(paths[1]), "-q", "Q4_K_M")
    here.ok(*by_path, "-u", "by-path")
    assert here.ok("generate", "-u", "by-path", *ask) == said
    (row,) = (row for row in here.json("cache", "list")["list"] if row["model_name"] == "in-parts")
    assert row["size_bytes"] == sum(path.stat().st_size for path in paths)
    paths[2].unlink()
    refused = here.run(*by_path, "-u", "again")
    assert refused.returncode == 4
    assert f"lacks parts of its weights: {paths[2].name}" in refused.stderr


def test_terminal_asks_before_a_large_download(here: Paddock, hub: HubServer) -> None:
    """A no launches nothing and brings nothing; --yes and a pipe are not asked."""
    arguments = ["launch", "mixtral-v0.1", "-f", "ggufv2", "-q", "Q2_K", "-u", "asked"]
    code, said = converse(here, arguments, [("Download 15.64 GB of mixtral-v0.1", b"n\n")])
    assert code == 130
    assert "was cancelled" in said
    assert hub.files() == []
    assert here.json("list") == []
    code, said = converse(here, [*arguments, "--yes"], [])
    assert code == 0
    assert "Download 15.64 GB" not in said
    here.ok("terminate", "-u", "asked")
    code, said = converse(here, arguments, [])
    assert code == 0  # the weights are here now
    assert "Download 15.64 GB" not in said
    here.ok("terminate", "-u", "asked")


def test_run_asks_too(here: Paddock, hub: HubServer) -> None:
    """And goes on after a yes."""
    arguments = ["run", "mixtral-v0.1", "The old", "-q", "Q3_K_M", "-u", "ran", "--max-tokens", "3"]
    code, _ = converse(here, arguments, [("Download 20.36 GB", b"y\n")])
    assert code == 0
    here.ok("terminate", "-u", "ran")
