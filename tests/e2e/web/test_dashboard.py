"""What a person does with the dashboard, from its pages to the engines and back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from paddock.registry.catalog import specs_root
from tests.conftest import Paddock
from tests.e2e.test_failures import engine_pid, restarted
from tests.e2e.web.conftest import DEADLINE_MS, WEB, Open, address
from tests.fakes import Fault, HubServer

TINY = specs_root() / "weights" / "tiny-mixtral" / "ggufv2" / "tiny-mixtral.Q4_K_M.gguf"
REPOSITORY = "TheBloke/Mixtral-8x7B-v0.1-GGUF"
MIXTRAL = "mixtral-8x7b-v0.1.Q4_K_M.gguf"
PAGES = (
    "/",
    "/?view=table&ability=chat",
    "/models/mixtral-v0.1",
    "/launch/tiny-mixtral?quantization=Q4_K_M",
    "/running",
    "/running/tiny",
    "/running/tiny?tab=log",
    "/running/tiny?tab=events",
    "/running/tiny?tab=plan",
    "/running/nobody",
    "/playground?models=tiny",
    "/memory?model=mixtral-v0.1",
    "/downloads",
    "/cluster",
    "/keys",
    "/nowhere",
)
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
UNDO_MS = 5000
"""How long the page waits before it ends a model."""
FIGURES_MS = 2000
"""How often the page reads figures."""
COLOURS_ARE_THERE = """Promise.allSettled(
  document.getAnimations().filter(one => one instanceof CSSTransition).map(one => one.finished)
).then(() => null)"""
ASKS = re.compile(r"/v1/models\b")
ENDLESS = ("-en", "echo", "--token-seconds", "3600")
"""Its answers stay at their first word."""
FIRST_SCRIPT_BYTES = 350_000
CLIENTS = ("OpenAI's client", "Xinference's client", "Paddock's client")
AXE = (WEB / "node_modules" / "axe-core" / "axe.min.js").as_posix()


@pytest.fixture
def hub(empty_hub: HubServer) -> HubServer:
    """A hub with one file of Mixtral's repository, in its place a tiny one."""
    empty_hub.repos[REPOSITORY] = {MIXTRAL: TINY.read_bytes()}
    return empty_hub


@pytest.fixture
def gateway(shared_paddock: Paddock, tiny: str) -> Paddock:
    """The gateway that all tests share, with `tiny` launched."""
    return shared_paddock


def test_from_search_to_terminate(gateway: Paddock, open_page: Open) -> None:
    """A model is found, planned, launched, asked and ended; the end can be undone."""
    page = open_page(gateway, clock=True)
    page.get_by_role("searchbox", name="Search models").fill("tiny mixtral")
    page.get_by_role("link", name="tiny-mixtral", exact=True).click()
    page.get_by_role("button", name=re.compile("Q4_K_M")).click()
    variant = page.get_by_role("region", name=re.compile("^Q4_K_M"))
    expect(variant).to_contain_text("llama.cpp: can serve it here")
    variant.get_by_role("link", name="Launch this").click()
    page.get_by_label("Id under which it answers").press_sequentially("by-hand")
    slots = page.get_by_label("Slots, requests at once")
    expect(slots).to_have_attribute("placeholder", re.compile(r"\d"))
    slots.fill("3")
    page.get_by_role("button", name="Options of llama.cpp").click()
    page.get_by_label("n_batch").fill("64")
    expect(page.get_by_text("--model-uid by-hand --n-parallel 3 --n-batch 64")).to_be_visible()
    for elsewhere in ("n_parallel", "n_ctx"):
        expect(page.get_by_label(elsewhere)).to_have_count(0)
    plan = page.get_by_test_id("plan")
    expect(plan.get_by_text("It fits in the free memory")).to_be_visible()
    expect(plan).to_contain_text("ggufv2 Q4_K_M")
    expect(plan).to_contain_text("3 requests at once")
    page.get_by_role("button", name="Launch", exact=True).click()
    expect(page.get_by_role("heading", name="by-hand")).to_be_visible()
    expect(page.locator("[data-state=ready]").first).to_be_visible()
    (launched,) = gateway.client().instances("by-hand")
    assert launched["plan"]["options"]["n_batch"] == 64
    assert launched["plan"]["slots"] == 3
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Message", exact=True).fill("What do you like to eat?")
    page.get_by_role("button", name="Send").click()
    answer = page.get_by_label("Answer of by-hand")
    expect(answer).not_to_be_empty()
    expect(page.get_by_test_id("timeline")).to_contain_text(re.compile(r"\d tokens/s"))
    expect(page.get_by_test_id("timeline")).to_contain_text(re.compile(r"\d+ \+ \d+ tokens"))
    page.goto(address(gateway, "/running/by-hand?tab=log"))
    expect(page.get_by_role("log")).to_contain_text("serving on http")
    terminate = page.get_by_role("button", name="Terminate")
    terminate.click()
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(terminate).to_be_enabled()
    terminate.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Undo: by-hand lives on")).to_be_focused()
    page.keyboard.press("Enter")
    expect(terminate).to_be_enabled()
    page.clock.fast_forward(UNDO_MS)
    assert gateway.client().describe("by-hand")["id"] == "by-hand"
    terminate.click()
    page.clock.fast_forward(UNDO_MS)
    expect(page.get_by_text("by-hand is not launched")).to_be_visible()
    assert "by-hand" not in {one["model_uid"] for one in gateway.client().instances()}


def test_a_failed_launch_says_why(gateway: Paddock, open_page: Open, tmp_path: Path) -> None:
    """A broken file ends in its diagnosis, with the cause, the deciding words and the way out."""
    broken = tmp_path / "broken.Q4_K_M.gguf"
    broken.write_bytes(TINY.read_bytes()[:200_000])
    path = f"/launch/tiny-mixtral?quantization=Q4_K_M&model_uid=broken&model_path={broken}"
    page = open_page(gateway, path, clock=True)
    expect(page.get_by_test_id("plan")).to_be_visible()
    page.get_by_role("button", name="Launch", exact=True).click()
    told = page.locator("[data-cause]")
    expect(told).to_have_attribute("data-cause", "corrupt_file")
    expect(told).to_contain_text("The weights are not a whole file")
    expect(told).to_contain_text(broken.name)
    page.get_by_role("button", name="Terminate").click()
    page.clock.fast_forward(UNDO_MS)
    expect(page.get_by_text("broken is not launched")).to_be_visible()


def test_a_failed_engine_says_its_last_words(
    gateway: Paddock, open_page: Open, tmp_path: Path
) -> None:
    """What the engine wrote stands in the diagnosis, and a button leads on to what would help."""
    unfit = tmp_path / "unfit.Q4_K_M.gguf"
    unfit.write_bytes(TINY.read_bytes().replace(b"blk.1.attn_q", b"blk.1.attn_x", 1))
    path = f"/launch/tiny-mixtral?quantization=Q4_K_M&model_uid=unfit&model_path={unfit}"
    page = open_page(gateway, path)
    page.get_by_role("button", name="Launch", exact=True).click()
    told = page.locator("[data-cause]")
    expect(told).to_contain_text("The engine's last lines")
    expect(told).to_contain_text("tensor 'blk.1.attn_q.weight' not found")
    expect(told).to_contain_text("paddock logs --model-uid unfit")
    told.get_by_role("link", name="Show the log").click()
    expect(page.get_by_role("tab", name="Log")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("log")).to_contain_text("failed to load model")
    gateway.ok("terminate", "-u", "unfit")


def test_a_killed_engine_is_started_again_before_ones_eyes(
    gateway: Paddock, open_page: Open
) -> None:
    """The page says why it failed, counts down to the next start, and is ready again by itself."""
    page = open_page(
        gateway, "/launch/tiny-mixtral?model_engine=echo&model_uid=phoenix&say=once+more"
    )
    page.get_by_role("button", name="When it fails").click()
    page.get_by_role("combobox", name="Start it again").click()
    page.get_by_role("option", name="always").click()
    expect(
        page.get_by_text("--model-uid phoenix --say 'once more' --restart always")
    ).to_be_visible()
    page.get_by_role("button", name="Launch", exact=True).click()
    replica = page.locator("[data-replica=phoenix-rep0]")
    expect(replica.locator("[data-state=ready]")).to_be_visible()
    expect(replica.get_by_test_id("restarts")).to_have_count(0)
    (launched,) = gateway.client().instances("phoenix")
    assert launched["restart"] == "always"
    # The first waits are short; of the third there is time to see something.
    for restarts in (1, 2):
        os.kill(engine_pid(gateway, "phoenix"), signal.SIGKILL)
        restarted(gateway, "phoenix", restarts)
    os.kill(engine_pid(gateway, "phoenix"), signal.SIGKILL)
    told = replica.get_by_test_id("restarts")
    expect(told).to_contain_text(re.compile(r"starts again in \d s"))
    expect(told).to_contain_text("3 restarts · Last failure: The engine was killed: ")
    expect(replica.locator("[data-state=pending]")).to_be_visible()
    expect(replica.locator("[data-state=ready]")).to_be_visible()
    expect(told).not_to_contain_text("starts again")
    told.get_by_text("The engine's last lines").click()
    expect(told.get_by_text("once more")).to_be_visible()
    page.get_by_role("tab", name="Events").click()
    expect(page.get_by_role("table", name="Events")).to_contain_text(
        re.compile(r"phoenix-rep0 failed \(engine_killed: .*\); starts again in .*, restart 3")
    )
    page.goto(address(gateway, "/running"))
    card = page.locator("[data-model=phoenix]")
    expect(card.locator("[data-state=ready]")).to_be_visible()
    expect(card.get_by_test_id("restarts")).to_contain_text("3 restarts · Last failure: ")
    gateway.ok("terminate", "-u", "phoenix")


def test_a_launch_is_called_off(here: Paddock, hub: HubServer, open_page: Open) -> None:
    """A launch shows each file as it comes, still does after a reload, and can be called off."""
    here.ok("list")
    hold = Fault(after=1_000_000, how="hold")
    hub.fail(MIXTRAL, hold, hold)  # where memory is short, a look at the header comes first
    page = open_page(
        here, "/launch/mixtral-v0.1?model_format=ggufv2&quantization=Q4_K_M", clock=True
    )
    launched: list[str] = []
    page.on(
        "request",
        lambda one: (
            launched.append(one.url) if one.method == "POST" and ASKS.search(one.url) else None
        ),
    )
    launch = page.get_by_role("button", name="Launch", exact=True)
    expect(launch).to_be_enabled()
    launch.dblclick()
    page.wait_for_url(lambda url: "/launch/" not in url)
    expect(page.get_by_role("heading", name="mixtral-v0.1")).to_be_visible()
    assert len(launched) == 1
    assert hub.held.wait(30)
    page.reload()
    progress = page.get_by_test_id("progress")
    expect(progress).to_contain_text("Downloading")
    page.clock.run_for(FIGURES_MS)
    expect(progress.get_by_role("progressbar", name=MIXTRAL)).to_be_visible()
    page.get_by_role("button", name="Call off").click()
    page.clock.fast_forward(UNDO_MS)
    expect(page.get_by_text("mixtral-v0.1 is not launched")).to_be_visible()
    assert here.client().instances() == []
    hub.go.set()


def test_what_cannot_be_served_offers_what_can(gateway: Paddock, open_page: Open) -> None:
    """A refused plan names each engine's reason, and one button leads to a variant that works."""
    page = open_page(gateway, "/launch/tiny-mixtral?model_format=gptq&model_engine=llama.cpp")
    refused = page.get_by_role("alert")
    expect(refused).to_contain_text("No engine here can serve tiny-mixtral 4M gptq")
    expect(refused.get_by_role("listitem").filter(has_text="llama.cpp")).to_have_text(
        "llama.cpp: serves ggufv2, not gptq"
    )
    page.get_by_role("button", name="ggufv2 Q4_K_M").click()
    expect(page.get_by_test_id("plan")).to_contain_text("ggufv2 Q4_K_M")
    page.go_back()
    expect(refused).to_contain_text("No engine here can serve tiny-mixtral")
    page.go_forward()
    page.get_by_label("Context, in tokens").fill("99999")
    expect(page.get_by_role("alert")).to_contain_text("2048")
    much = "model_format=ggufv2&quantization=Q2_K&context_length=32768&n_parallel=256"
    page.goto(address(gateway, f"/launch/mixtral-v0.1?{much}"))
    expect(page.get_by_role("alert")).to_contain_text("No room")
    expect(page.get_by_role("button", name="Launch", exact=True)).to_be_disabled()
    page.get_by_role("link", name="Compare what fits").click()
    expect(page.get_by_role("heading", name="Memory", exact=True)).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Q2_K"))).to_contain_text("GB")


def test_plan_with_an_engine_that_is_not_installed_leads_to_its_install(
    gateway: Paddock, open_page: Open
) -> None:
    """It has all figures, and cannot be launched yet."""
    page = open_page(gateway, "/launch/tiny-mixtral?model_format=gptq")
    expect(page.get_by_test_id("plan")).to_contain_text("Transformers")
    expect(page.get_by_role("button", name="Launch", exact=True)).to_be_disabled()
    page.get_by_role("link", name=re.compile("nstall.*Transformers")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Transformers")


def test_a_download_is_called_off_and_taken_up(
    here: Paddock, hub: HubServer, open_page: Open
) -> None:
    """A pull shows its file, can be called off, goes on from where it was, is verified, removed."""
    here.ok("list")
    hub.fail(MIXTRAL, Fault(after=1_000_000, how="hold"))
    page = open_page(here, "/models/mixtral-v0.1")
    page.get_by_role("button", name=re.compile("Q4_K_M")).click()
    page.get_by_role("button", name=re.compile("^Download ")).click()
    page.get_by_role("link", name="Watch it").click()
    pull = page.locator("[data-pull]").first  # the newest
    expect(pull).to_have_attribute("data-pull", "downloading")
    expect(pull.get_by_text(MIXTRAL)).to_be_visible()
    assert hub.held.wait(30)
    pull.get_by_role("button", name="Call off").click()
    expect(pull).to_have_attribute("data-pull", "cancelled")
    hub.go.set()
    pull.get_by_role("button", name="Go on").click()
    expect(pull).to_have_attribute("data-pull", "done")
    cached = page.locator("[data-cached='mixtral-v0.1']")
    cached.get_by_role("button", name="Verify").click()
    expect(cached.get_by_role("status")).to_contain_text(f"{MIXTRAL}: whole")
    cached.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove them").click()
    expect(cached).to_be_hidden()
    assert here.json("cache", "list")["list"] == []
    page.goto(address(here, "/"))
    page.get_by_role("searchbox").fill(f"hf:{REPOSITORY}")
    page.get_by_role("link", name="Look at it").click()
    expect(page.get_by_role("button", name=re.compile("Q4_K_M"))).to_be_visible()
    expect(page.get_by_text(f"paddock launch hf:{REPOSITORY}", exact=True)).to_be_visible()


def test_signing_in_where_keys_are_asked_for(paddock: Paddock, open_page: Open) -> None:
    """The first key is made and shown once; then a page without one must sign in, and can.

    The page whose key is revoked must sign in too, though no key is left.
    """
    paddock.ok("list")
    page = open_page(paddock, "/keys")
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("mine")
    dialog.get_by_role("button", name="Create a key").click()
    made = page.get_by_role("alert").filter(has_text="The key was made").locator("pre")
    key = made.inner_text()
    page.reload()
    expect(page.locator("[data-key=mine]")).to_be_visible()
    expect(page.get_by_text(key)).to_be_hidden()
    other = open_page(paddock, "/keys")
    other.get_by_label("API key").fill("wrong")
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_role("alert")).to_contain_text("not known here")
    other.get_by_label("API key").fill(key)
    other.get_by_role("button", name="Sign in").click()
    expect(other.locator("[data-key=mine]")).to_be_visible()
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("heading", name="Sign in to Paddock")).to_be_visible()
    page.get_by_role("button", name="Revoke mine").click()
    expect(page.get_by_role("dialog")).to_contain_text("paddock keys create")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("heading", name="Sign in to Paddock")).to_be_visible()


def test_a_key_for_asking_sees_what_it_may(
    gateway: Paddock, paddock: Paddock, open_page: Open
) -> None:
    """With a key of scope inference, there is the playground with its models, and nothing else."""
    paddock.ok("list")
    for uid in ("mine", "other"):
        endpoint = f"{gateway.record['endpoint']}/v1"
        paddock.client().attach(endpoint, model="tiny", model_uid=uid)
    key = paddock.json("keys", "create", "--scope", "inference", "--model", "mine")["key"]
    page = open_page(paddock, "/keys")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Message", exact=True).fill("What do you like to eat?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Answer of mine")).not_to_be_empty()
    expect(page.get_by_role("navigation").get_by_role("link", name="Playground")).to_be_visible()
    expect(page.get_by_role("link", name="API keys")).to_have_count(0)
    expect(page.locator("[data-answers]")).to_have_count(1)
    page.goto(address(paddock, "/playground?models=other"))
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("Not allowed")


@pytest.mark.parametrize("engine", ["sentence-transformers", "Transformers"])
def test_an_install_is_watched_and_called_off(
    gateway: Paddock, open_page: Open, engine: str
) -> None:
    """A suggested install opens its dialog; its steps are told; called off, nothing of it stays."""
    page = open_page(gateway, f"/cluster?install={engine}")
    page.get_by_role("dialog").get_by_role("button", name="Install", exact=True).click()
    card = page.locator(f"[data-engine='{engine}']")
    expect(card).to_have_attribute("data-state", "installing")
    expect(card.get_by_role("status")).not_to_be_empty()
    card.get_by_role("button", name="Call off").click()
    expect(card).to_have_attribute("data-state", "cancelled")
    expect(card.get_by_text("not installed", exact=True)).to_be_visible()
    assert not list((gateway.home / "engines").glob(f"{engine.lower()}/*/bin"))


def test_two_tabs_stay_in_step(gateway: Paddock, open_page: Open) -> None:
    """What one tab or a terminal does shows in another without loading it anew."""
    one, other = open_page(gateway, "/running", clock=True), open_page(gateway, "/running")
    expect(one.locator("[data-model=tiny]")).to_be_visible()
    gateway.ok("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q2_K", "-u", "second")
    for page in (one, other):
        row = page.locator("[data-model=second]")
        expect(row.locator("[data-state=ready]")).to_be_visible()
    one.get_by_role("button", name="Terminate second").click()
    one.clock.fast_forward(UNDO_MS)
    for page in (one, other):
        expect(page.locator("[data-model=second]")).to_have_count(0)


def test_a_gateway_that_restarts_is_found_again(paddock: Paddock, open_page: Open) -> None:
    """A lost gateway is said to be lost; when it is back, the page goes on as if nothing was.

    A page that could not be fetched in between comes then.
    """
    process = paddock.start("serve")
    paddock.ok("list")
    port = paddock.record["endpoint"].rpartition(":")[2]
    page = open_page(paddock, "/running")
    expect(page.get_by_text("Nothing is launched")).to_be_visible()
    paddock.ok("stop")
    process.communicate()
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer")
    page.get_by_role("link", name="Memory").click()
    expect(page.get_by_text("This page could not be fetched")).to_be_visible()
    again = paddock.start("serve", "--port", port)
    expect(page.get_by_role("heading", name="Memory")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    paddock.ok("stop")
    again.communicate()


def test_several_models_side_by_side(gateway: Paddock, open_page: Open) -> None:
    """One prompt goes to both; each has its speed; the history brings the prompt back."""
    gateway.ok("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q8_0", "-u", "eight")
    page = open_page(gateway, "/playground?models=tiny,eight&mode=completion")
    page.get_by_role("button", name="Sampling, JSON schema, tools").click()
    page.get_by_label("temperature").fill("0")
    page.get_by_label("max_tokens").fill("12")
    page.get_by_label("Prompt", exact=True).fill("The old elephant")
    page.keyboard.press("Control+Enter")
    for uid in ("tiny", "eight"):
        shown = page.locator(f"[data-answers={uid}]")
        expect(shown.locator("[data-run=done]")).to_be_visible()
        expect(shown.get_by_test_id("timeline")).to_contain_text("cut off at max_tokens")
        told = gateway.client().complete(uid, "The old elephant", max_tokens=12, temperature=0)
        expect(shown.get_by_test_id("answer")).to_have_text(told["choices"][0]["text"].strip())
    page.reload()
    page.get_by_role("button", name="History").click()
    page.get_by_role("dialog").get_by_role("button", name="The old elephant").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("The old elephant")
    gateway.ok("terminate", "-u", "eight")


@pytest.mark.parametrize("mode", ["completion", "chat"])
def test_what_is_copied_does_the_same(gateway: Paddock, open_page: Open, mode: str) -> None:
    """Each copied program, run as it is, says what the model says."""
    page = open_page(gateway, f"/playground?models=tiny&mode={mode}")
    page.get_by_role("button", name="Sampling, JSON schema, tools").click()
    for field, text in (("temperature", "0"), ("max_tokens", "12"), ("top_k", "5")):
        page.get_by_label(field).fill(text)
    page.get_by_label("stop").fill("zebra")
    page.get_by_label("logprobs").fill("2")
    page.get_by_label("ignore_eos").check()
    page.get_by_label("Other fields").fill('{"typical_p": 0.9}')
    question = 'It\'s "old",\nthe elephant'
    said = asked(page, question)
    assert len(said) == 1
    for client in CLIENTS:
        assert run([sys.executable, "-c", copied(page, client)]).strip() == said[0]
    program = copied(page, "curl")
    assert said[0] not in program
    events = run(["bash", "-c", program])
    first = json.loads(events.partition("data: ")[2].partition("\n")[0])
    assert first["model"] == "tiny"
    assert '"logprobs":{' in events
    assert "data: [DONE]" in events
    page.get_by_label("n", exact=True).fill("2")
    if mode == "completion":
        page.get_by_label("logprobs").clear()
        page.get_by_label("echo").check()
    said = asked(page, question)
    assert len(said) == 2
    for client in CLIENTS:
        printed = run([sys.executable, "-c", copied(page, client)])
        assert printed.split() == " ".join(said).split()


def test_answers_show_their_tokens(gateway: Paddock, open_page: Open) -> None:
    """Each of several answers has its tokens with probabilities; what an engine refuses is told."""
    page = open_page(gateway, "/playground?models=tiny&mode=completion")
    page.get_by_role("button", name="Sampling, JSON schema, tools").click()
    for field, text in (("n", "2"), ("logprobs", "3"), ("max_tokens", "8"), ("seed", "7")):
        page.get_by_label(field, exact=True).fill(text)
    page.get_by_label("ignore_eos").check()
    first, second = asked(page, "The old elephant")
    assert first != second
    expect(page.get_by_test_id("timeline")).to_contain_text("+ 16 tokens")
    tables = page.get_by_role("table", name="Log probabilities")
    expect(tables).to_have_count(0)
    for number, answer in ((1, first), (2, second)):
        expect(page.get_by_label(f"Answer {number} of tiny")).to_have_text(answer)
        page.get_by_text("Log probabilities").nth(number - 1).click()
        rows = tables.nth(number - 1).locator("tbody tr")
        expect(rows).to_have_count(8)
        tokens = [json.loads(text) for text in rows.locator("td:first-child").all_inner_texts()]
        assert "".join(tokens).strip() == answer
        expect(rows.first.locator("td").nth(1)).to_have_text(re.compile(r"^[\d.]+ %$"))
        expect(rows.first.locator("td").nth(2)).to_contain_text("%")
    assert serious(page) == []
    page.get_by_label("echo").check()
    page.get_by_role("button", name="Continue the text").click()
    expect(page.get_by_role("alert")).to_contain_text("echo")
    page.get_by_label("logprobs").clear()
    assert all(text.startswith("The old elephant") for text in asked(page, "The old elephant"))
    page.get_by_text("Chat", exact=True).click()
    expect(page.get_by_label("echo")).to_have_count(0)
    page.get_by_label("logprobs").fill("3")
    first, _ = asked(page, "What do you like to eat?")
    expect(page.get_by_test_id("timeline")).to_be_in_viewport()
    expect(page.get_by_text("Log probabilities")).to_have_count(2)
    asked(page, "And what else?")
    turns = page.locator("[data-answers=tiny]")
    expect(turns.get_by_text("Model", exact=True)).to_have_count(1)
    expect(turns.get_by_text(first, exact=True)).to_be_visible()


def test_copying_works_without_a_secure_page(gateway: Paddock, open_page: Open) -> None:
    """Over plain HTTP from another machine browsers give no clipboard; the older way does it."""
    page = open_page(gateway, "/keys")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(address(gateway, "/launch/tiny-mixtral"))
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_label("Id under which it answers").click()
    page.keyboard.press("Control+v")
    pasted = page.get_by_label("Id under which it answers")
    expect(pasted).to_have_value("paddock launch --model-name tiny-mixtral")


def test_replicas_are_added_and_ended(gateway: Paddock, open_page: Open) -> None:
    """A replica more answers soon; one is ended by its button; the last one has none that works."""
    gateway.ok("launch", "tiny-mixtral", "-f", "ggufv2", "-q", "Q2_K", "-u", "grows")
    page = open_page(gateway, "/running/grows")
    expect(page.locator("[data-replica]")).to_have_count(1)
    expect(page.get_by_role("button", name="End grows-rep0")).to_be_disabled()
    page.get_by_role("button", name="Add a replica").click()
    expect(page.locator("[data-replica=grows-rep1] [data-state=ready]")).to_be_visible()
    page.get_by_role("button", name="End grows-rep0").click()
    expect(page.locator("[data-replica=grows-rep0]")).to_have_count(0)
    assert [one["replica_id"] for one in replicas(gateway, "grows")] == [1]
    gateway.ok("terminate", "-u", "grows")


def test_an_answer_can_be_stopped(gateway: Paddock, open_page: Open) -> None:
    """Stop ends the stream and keeps what has come."""
    gateway.ok("launch", "tiny-mixtral", *ENDLESS, "-u", "slow")
    page = open_page(gateway, "/playground?models=slow&mode=completion")
    page.get_by_label("Prompt", exact=True).fill("One two")
    page.get_by_role("button", name="Continue the text").click()
    expect(page.get_by_test_id("answer")).to_have_text("One")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("[data-run=stopped]")).to_be_visible()
    expect(page.get_by_test_id("answer")).to_have_text("One")
    gateway.ok("terminate", "-u", "slow")


def test_a_broken_answer_keeps_what_has_come(
    gateway: Paddock, paddock: Paddock, open_page: Open
) -> None:
    """Where the engine or the gateway is gone within an answer, that is told and the rest stays."""
    gateway.ok("launch", "tiny-mixtral", "-en", "echo", "--die-after", "2", "-u", "dies")
    gateway.ok("launch", "tiny-mixtral", *ENDLESS, "-u", "endless")
    page = open_page(gateway, "/playground?models=dies&mode=completion")
    page.get_by_label("Prompt", exact=True).fill("One two three")
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-run=failed]").get_by_role("alert")).to_contain_text("broke off")
    expect(page.get_by_test_id("answer")).to_have_text("One two")
    paddock.ok("list")
    endpoint = f"{gateway.record['endpoint']}/v1"
    paddock.client().attach(endpoint, model="endless", model_uid="far")
    page = open_page(paddock, "/playground?models=far&mode=completion")
    page.get_by_label("Prompt", exact=True).fill("One two")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_test_id("answer")).to_have_text("One")
    os.kill(paddock.record["pid"], signal.SIGKILL)
    run = page.locator("[data-run=failed]")
    expect(run.get_by_role("alert")).to_contain_text("The gateway does not answer")
    expect(page.get_by_test_id("answer")).to_have_text("One")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("One two")
    for uid in ("dies", "endless"):
        gateway.ok("terminate", "-u", uid)


def test_wrong_fields_are_named(gateway: Paddock, open_page: Open) -> None:
    """A field that is no JSON, or other JSON than it must be, says so itself; nothing is sent."""
    page = open_page(gateway, "/playground?models=tiny&mode=completion")
    page.get_by_role("button", name="Sampling, JSON schema, tools").click()
    page.get_by_label("Prompt", exact=True).fill("The old elephant")
    page.get_by_label("JSON schema", exact=True).fill("{")
    page.get_by_role("button", name="Continue the text").click()
    expect(page.get_by_text(re.compile("property name"))).to_be_visible()
    page.get_by_label("JSON schema", exact=True).clear()
    page.get_by_text("Chat", exact=True).click()
    page.get_by_label("Tools", exact=True).fill("{}")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("A JSON list is needed")).to_be_visible()
    expect(page.locator("[data-run]")).to_have_count(0)


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_accessible(gateway: Paddock, open_page: Open, path: str) -> None:
    """axe finds nothing serious, in light and in dark; the page fits 360 pixels and 1440."""
    has_figures = path in ("/running", "/running/tiny")
    page = open_page(gateway, path, width=1440, clock=has_figures)
    settle(page)
    if has_figures:
        chart = page.locator(".recharts-surface").first
        while not chart.is_visible():  # two rates take three reads
            with page.expect_response("**/metrics"):
                page.clock.fast_forward(FIGURES_MS)
    in_both_schemes(page)
    for width in (1440, 360):
        page.set_viewport_size({"width": width, "height": 740})
        wait_until_it_fits(page)


def test_empty_pages_are_accessible(paddock: Paddock, open_page: Open) -> None:
    """Where there is nothing yet, a page says what to do, and axe finds nothing serious."""
    paddock.ok("list")
    page = open_page(paddock, "/running")
    for path, told, way in (
        ("/running", "Nothing is launched", "tiny-mixtral"),
        ("/playground", "No model can answer", "tiny-mixtral"),
        ("/downloads", "No weights are here", "to the models"),
        ("/keys", "There are no keys", None),
        ("/?q=no+such+model", "No model matches", None),
    ):
        page.goto(address(paddock, path))
        expect(page.get_by_role("heading", name=told)).to_be_visible()
        settle(page)
        in_both_schemes(page)
        if way:
            page.get_by_role("main").get_by_role("link", name=way, exact=True).click()
            expect(page.get_by_role("heading", name=told)).to_be_hidden()


def test_what_opens_is_accessible(gateway: Paddock, open_page: Open) -> None:
    """Dialogs, drawers, menus and folded forms too."""
    page = open_page(gateway, "/keys")
    page.get_by_role("button", name="Create a key").click()
    assert serious(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.goto(address(gateway, "/cluster?install=transformers"))
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious(page) == []
    page.goto(address(gateway, "/playground?models=tiny"))
    page.get_by_role("button", name="Sampling, JSON schema, tools").click()
    expect(page.get_by_label("temperature")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="History").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious(page) == []
    page.goto(address(gateway, "/"))
    page.get_by_role("button", name="Filters").click()
    expect(page.get_by_label("Billions of parameters")).to_be_visible()
    assert serious(page) == []


def test_pages_speak_chinese(gateway: Paddock, open_page: Open) -> None:
    """The browser's language is taken, and another can be chosen and stays."""
    page = open_page(gateway, "/running", language="zh-CN")
    expect(page.get_by_role("heading", name="运行中的模型")).to_be_visible()
    page.goto(address(gateway, "/launch/tiny-mixtral?quantization=Q4_K_M"))
    expect(page.get_by_test_id("plan")).to_contain_text(re.compile(r"槽位 \d"))
    page.goto(address(gateway, "/running"))
    page.get_by_role("button", name="语言").click()
    page.get_by_role("menuitem", name="English").click()
    expect(page.get_by_role("heading", name="Running models")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Running models")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_keyboard_is_enough(gateway: Paddock, open_page: Open) -> None:
    """From the address bar, Tab and Enter lead past the menu, to a page and into the search."""
    page = open_page(gateway)
    expect(page.get_by_role("list", name="Models")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("tiny-mixtral")
    expect(page.get_by_role("listitem")).to_have_count(1)
    page.get_by_role("link", name="tiny-mixtral", exact=True).press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    settle(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Memory").nth(1)).to_be_focused()
    page.go_back()
    page.get_by_role("link", name="Running").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Running models")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("tiny-mixtral")


def test_the_focus_is_never_lost(gateway: Paddock, open_page: Open) -> None:
    """A dialog holds the focus and gives it back; a menu that is folded away does not take it."""
    page = open_page(gateway, "/keys", width=360)
    create = page.get_by_role("button", name="Create a key")
    expect(create).to_be_enabled()
    create.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
    for _ in range(9):
        page.keyboard.press("Tab")
        expect(dialog.locator(":focus")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(create).to_be_focused()
    menu = page.get_by_role("button", name="Menu")
    pages = page.get_by_role("navigation")
    expect(pages).to_be_hidden()
    menu.press("Enter")
    pages.get_by_role("link", name="Cluster").focus()
    page.keyboard.press("Escape")
    expect(pages).to_be_hidden()
    menu.press("Enter")
    pages.get_by_role("link", name="Cluster").press("Enter")
    expect(page.get_by_role("heading", name="Cluster")).to_be_visible()
    expect(pages).to_be_hidden()


def test_filters_stand_in_the_address(gateway: Paddock, open_page: Open) -> None:
    """A link leads to the same list: words, filters and view."""
    page = open_page(gateway, "/?q=qwen&ability=vision&format=ggufv2&view=table")
    expect(page.get_by_role("searchbox")).to_have_value("qwen")
    names = [
        one["name"]
        for one in gateway.json("search", "qwen", "-a", "vision", "-f", "ggufv2")["models"]
    ]
    expect(page.get_by_role("status").filter(has_text="models")).to_have_text(
        f"{len(names)} models"
    )
    page.get_by_role("searchbox").fill("no such model at all")
    expect(page.get_by_text("No model matches")).to_be_visible()
    page.get_by_role("button", name="Clear words and filters").click()
    expect(page.get_by_role("searchbox")).to_have_value("")
    page.goto(address(gateway, "/?q=mixtral"))
    expect(page.get_by_role("searchbox")).to_have_value("mixtral")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_the_first_load_is_small_and_stays_here(gateway: Paddock, open_page: Open) -> None:
    """The first page takes under 350 KB of compressed script, and nothing of another host."""
    page = open_page(gateway, "/keys")
    settle(page)
    asked: list[str] = []
    sizes: list[int] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on(
        "response",
        lambda response: (
            sizes.append(int(response.headers["content-length"]))
            if response.request.resource_type == "script"
            else None
        ),
    )
    page.goto("about:blank")
    page.goto(address(gateway, "/"))
    expect(page.get_by_role("list", name="Models")).to_be_visible()
    settle(page)
    endpoint = gateway.record["endpoint"]
    assert [url for url in asked if not url.startswith((endpoint, "data:", "about:"))] == []
    assert 0 < sum(sizes) < FIRST_SCRIPT_BYTES


def test_a_thousand_models_are_drawn_as_they_are_seen(gateway: Paddock, open_page: Open) -> None:
    """A list of 1,000 models holds only what is seen in the page, and ends where it ends."""
    page = open_page(gateway, "/keys")
    many = json.loads(page.evaluate("fetch('v1/zoo').then(answer => answer.text())"))
    first = many["models"][0]
    many["models"] = [first | {"name": f"model-{number}"} for number in range(1000)]
    page.route("**/v1/zoo", lambda route: route.fulfill(json=many))
    page.goto(address(gateway, "/?view=table"))
    expect(page.get_by_role("link", name="model-0", exact=True)).to_be_visible()
    assert page.get_by_role("listitem").count() < 60
    page.keyboard.press("End")
    expect(page.get_by_role("link", name="model-999", exact=True)).to_be_visible()
    assert page.get_by_role("listitem").count() < 60


def settle(page: Page) -> None:
    """Waits until the page shows what it has asked for."""
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator(".mantine-Skeleton-root")).to_have_count(0)


def wait_until_it_fits(page: Page) -> None:
    """Charts follow the window a moment later. The page's policy allows no polling within it."""
    deadline = time.monotonic() + DEADLINE_MS / 1000
    while not page.evaluate(FITS):
        assert time.monotonic() < deadline, f"{page.url} is wider than its window"
        page.wait_for_timeout(20)


def in_both_schemes(page: Page) -> None:
    """axe finds nothing serious, in light and in dark."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        expect(page.locator(f"html[data-mantine-color-scheme={scheme}]")).to_be_visible()
        page.evaluate(COLOURS_ARE_THERE)
        assert serious(page) == []


def serious(page: Page) -> list[str]:
    """What axe finds that keeps people out."""
    if page.evaluate("window.axe === undefined"):
        page.evaluate(Path(AXE).read_text())
    found: Any = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']][:3]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]


def asked(page: Page, text: str) -> list[str]:
    """Asks one model of the playground, and gives its answers once they are whole."""
    page.get_by_label(re.compile("^(Prompt|Message)$")).fill(text)
    page.keyboard.press("Control+Enter")
    expect(page.locator("[data-run=done]")).to_be_visible()
    return [said.strip() for said in page.get_by_test_id("answer").all_inner_texts()]


def copied(page: Page, kind: str) -> str:
    """The request as it is copied for a kind of program."""
    page.get_by_role("button", name="Copy as").click()
    page.get_by_role("menuitem", name=kind).click()
    return str(page.evaluate("navigator.clipboard.readText()"))


def replicas(paddock: Paddock, uid: str) -> list[Any]:
    """A model's replicas, as the gateway tells of them."""
    (model,) = paddock.client().instances(uid)
    return list(model["replica_statuses"])


def run(command: list[str]) -> str:
    """What a program prints; it has to end well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
