"""Specs derived from a hub on loopback and from disk: what is asked, kept, refused and allowed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from paddock.launcher.fleet.references import PLAN_AGE, References
from paddock.launcher.hosts.host import probe_host
from paddock.launcher.jobs.run_derive import look
from paddock.launcher.planning.plan import LaunchPlan, LaunchRequest, PlannedWeights
from paddock.launcher.planning.resolve import resolve, resolve_weights
from paddock.launcher.replicas.diagnosis import launch_command
from paddock.launcher.weights import Terms, fetch, ranges
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.derive import SMALL_BYTES, Derived
from paddock.registry.errors import BadValue, HubFailure, NeedsConsent, NoSpec
from paddock.registry.reference import Reference
from paddock.registry.settings import read_settings
from tests.fakes import COMMIT, Content, Fault, HubServer, model_header, texts

pytestmark = pytest.mark.hubs

REPO = "keeper/zoo-GGUF"
FILE = "zoo.Q4_0.gguf"
LARGE = 40_000_000
HUBS = ["huggingface", "modelscope"]
TINY = specs_root() / "weights" / "tiny-mixtral"
PYTORCH = {path.name: path.read_bytes() for path in (TINY / "pytorch" / "none").iterdir()}
TODAY = date(2026, 11, 21)
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def stocked(hub: HubServer) -> None:
    """The hub has a large GGUF in place of the small one, and a repository of safetensors."""
    hub.repos[REPO] = {FILE: model_header() + bytes(LARGE), "README.md": b"hello"}
    hub.repos["keeper/zoo"] = dict(PYTORCH)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog.load()


@pytest.fixture
async def references(home: Path) -> References:
    return References(read_settings(environ={"PADDOCK_HOME": str(home)}))


def found_at(reference: Reference, terms: Terms, known: str = "") -> Derived:
    found = look(reference, terms, known, TODAY)
    assert found is not None
    return found


def asked_for(hub: HubServer) -> list[str]:
    """The requests that hubs were asked, without those that only see whether they answer."""
    return [line for line in hub.asked if line != "HEAD /" and "agent-harnesses" not in line]


# What is read


@pytest.mark.parametrize("name", HUBS)
def test_of_a_large_file_the_header_is_read_and_nothing_else(
    hub: HubServer, terms: Terms, name: Any
) -> None:
    """One list, the card, and one block of the one file, on either hub."""
    found = found_at(Reference(name, REPO), terms)
    source = found.spec.variants[0].sources[0]
    assert (source.hub, source.id, source.file) == (name, REPO, FILE)
    assert source.revision == (COMMIT if name == "huggingface" else None)
    assert hub.ranges == [("README.md", 0), (FILE, 0)]
    assert hub.sent == ranges.FIRST_BYTES + len(b"hello")
    assert look(Reference(name, REPO), terms, found.commit, TODAY) is None
    assert len(hub.ranges) == 2


def with_words(count: int) -> bytes:
    """A header whose vocabulary is so long."""
    words = texts("more.words", [f"word {number}" for number in range(count)])
    header = model_header()
    entries = int.from_bytes(header[16:24], "little") + 1
    return header[:16] + entries.to_bytes(8, "little") + words + header[24:] + bytes(LARGE)


def test_a_long_header_comes_in_blocks_that_grow(hub: HubServer, terms: Terms) -> None:
    """Each byte once, and at most as many again as the header has."""
    hub.repos[REPO][FILE] = with_words(100_000)
    found = found_at(Reference("huggingface", REPO), terms)
    assert found.spec.architecture.layers == 2
    starts = [start for name, start in hub.ranges if name == FILE]
    first = ranges.FIRST_BYTES
    assert starts == [0, first, 2 * first, 4 * first]
    assert hub.sent == 8 * first + len(b"hello")


def test_a_server_that_ignores_ranges_costs_no_gigabytes(hub: HubServer, terms: Terms) -> None:
    """The beginning of each answer is taken and the connection closed."""
    hub.repos[REPO][FILE] = with_words(40_000)
    hub.fail(FILE, *[Fault(no_ranges=True)] * 3)
    found = found_at(Reference("huggingface", REPO), terms)
    assert found.spec.architecture.layers == 2
    assert [start for name, start in hub.ranges if name == FILE] == [0, 0, 0]
    assert hub.sent < LARGE


def test_a_server_that_sends_another_range_is_not_believed(hub: HubServer, terms: Terms) -> None:
    """It is asked again, and then that is the error."""
    hub.fail(FILE, *[Fault(shift=7)] * 3)
    with pytest.raises(HubFailure, match="another range") as caught:
        found_at(Reference("huggingface", REPO), terms)
    assert caught.value.cause == "hub_unreachable"
    hub.fail(FILE, Fault(shift=7), Fault(after=1000), Fault(503))
    with pytest.raises(HubFailure):
        found_at(Reference("huggingface", REPO), terms)
    hub.fail(FILE, Fault(503), Fault(after=1000, how="reset"))
    assert found_at(Reference("huggingface", REPO), terms).spec.name == "zoo-GGUF"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<html>" + bytes(1000), "is no whole GGUF: not a GGUF file"),
        (model_header()[:500], "is no whole GGUF: the header ends after 500 bytes"),
        (model_header()[:-1000], r"has [0-9]+ bytes of [0-9]+ that its header declares"),
        (model_header()[:16] + b"\xff" * 8 + bytes(5000), "metadata entries are declared"),
    ],
)
def test_a_broken_header_is_refused_by_its_file(
    hub: HubServer, terms: Terms, data: bytes, says: str
) -> None:
    """Before a byte of the weights comes."""
    hub.repos[REPO] = {FILE: data}
    with pytest.raises(NoSpec, match=says) as caught:
        found_at(Reference("huggingface", REPO), terms)
    assert caught.value.file == FILE


def test_an_endless_header_is_left(
    hub: HubServer, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no header is as long as is not fetched."""
    monkeypatch.setattr(ranges, "MOST_BYTES", 1 << 20)
    hub.repos[REPO][FILE] = with_words(200_000)
    with pytest.raises(NoSpec, match="its header is longer than 1 MiB"):
        found_at(Reference("huggingface", REPO), terms)
    assert hub.sent <= (1 << 20) + len(b"hello")


@pytest.mark.parametrize("name", HUBS)
def test_a_file_that_is_gated_is_told_so(hub: HubServer, terms: Terms, name: Any) -> None:
    """Lists of gated repositories are open to all; their files are not."""
    hub.fail(FILE, Fault(403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(HubFailure, match="ask for access at") as caught:
        found_at(Reference(name, REPO), terms)
    assert caught.value.cause == "gated_repo"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("sha256-4d7a", model_header(), "ln -s .*sha256-4d7a sha256-4d7a.gguf"),
        ("model.bin", b"PK\3\4" + bytes(90), "is a ZIP archive, or a model that PyTorch"),
        ("notes.txt", b"hello", "is text; a model is a .gguf file, or a folder"),
        ("x.GGUF.tmp", bytes(90), "is zeros"),
        ("blob", b"\xfa\x01", "is a file; a model is"),
    ],
)
def test_a_file_without_the_ending_is_told_what_it_is(
    tmp_path: Path, terms: Terms, name: str, data: bytes, says: str
) -> None:
    """A GGUF that another tool keeps as a blob, with the command that links it by a name."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadValue, match=says):
        found_at(Reference("path", str(tmp_path / name)), terms)


@pytest.mark.parametrize("folder", ["my models", "模型", "a@(~#)", "a'b & $c"])
def test_weights_at_any_path_are_derived(tmp_path: Path, terms: Terms, folder: str) -> None:
    """Paths are what users make them; the file is found again by the spec."""
    place = tmp_path / folder
    place.mkdir()
    (place / "小 象 #1.Q4_0.gguf").write_bytes(model_header())
    found = found_at(Reference("path", str(place)), terms)
    (source,) = found.spec.variants[0].sources
    assert (Path(source.id) / str(source.file)).is_file()
    assert found.spec.name


def test_parts_of_one_model_are_counted_together(hub: HubServer, terms: Terms) -> None:
    """The first part's numbers, the tensors of all."""
    part = model_header()
    names = [f"zoo.Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repos[REPO] = dict.fromkeys(names, part)
    found = found_at(Reference("huggingface", REPO), terms)
    assert found.spec.architecture.parameters == 3 * 256 * 1000
    (weights,) = found.spec.weights
    assert weights.sources[0].file_template == names[0]
    assert dict(weights.size_bytes) == {"Q8_0": 3 * len(part)}


@pytest.mark.parametrize("name", HUBS)
def test_a_repository_in_safetensors_is_read_without_its_weights(
    hub: HubServer, terms: Terms, name: Any
) -> None:
    """Its configurations come, checked by their digests."""
    found = found_at(Reference(name, "keeper/zoo"), terms)
    assert set(hub.files()) == {"config.json", "tokenizer_config.json"}
    assert found.spec.architecture.name == "MixtralForCausalLM"
    assert found.spec.abilities == ("generate", "chat")
    hub.fail("config.json", *[Fault(wrong=True)] * 3)
    with pytest.raises(HubFailure) as caught:
        found_at(Reference(name, "keeper/zoo"), terms)
    assert caught.value.cause == "checksum_mismatch"


def test_a_configuration_that_is_too_large_is_not_fetched(hub: HubServer, terms: Terms) -> None:
    """Nobody writes four megabytes of configuration."""
    hub.repos["keeper/zoo"]["config.json"] = b" " * (SMALL_BYTES + 1)
    with pytest.raises(NoSpec, match=r"config\.json is not there, or no JSON that can be read"):
        found_at(Reference("huggingface", "keeper/zoo"), terms)
    assert "config.json" not in hub.files()


# What is kept


async def test_a_branch_is_looked_up_and_read_only_where_it_moved(
    hub: HubServer, references: References, catalog: Catalog, home: Path
) -> None:
    """The second time costs one list; a new commit is read; a commit and `offline` cost nothing."""
    first = await references.derive(f"hf:{REPO}", catalog)
    assert (first.commit, first.spec.name) == (COMMIT, "zoo-GGUF")
    hub.asked.clear()
    hub.ranges.clear()
    assert await references.derive(f"hf:{REPO}", catalog) == first
    assert len(asked_for(hub)) == 1
    assert hub.ranges == []
    hub.commits[REPO] = OTHER
    moved = await references.derive(f"{hub.endpoint}/{REPO}", catalog)
    assert moved.commit == moved.spec.variants[0].sources[0].revision == OTHER
    assert hub.ranges != []
    await references.derive(f"hf:{REPO}@{OTHER}", catalog)
    hub.asked.clear()
    assert (await references.derive(f"hf:{REPO}@{OTHER}", catalog)).commit == OTHER
    assert await references.derive(f"hf:{REPO}", catalog, offline=True) == moved
    assert hub.asked == []
    with pytest.raises(HubFailure, match="--offline was asked for"):
        await references.derive("hf:keeper/zoo", catalog, offline=True)
    assert len(list((home / "derived").glob("*.yaml"))) == 2
    assert {found.reference for found in references.cached()} == {
        f"hf:{REPO}",
        f"hf:{REPO}@{OTHER}",
    }


async def test_a_hub_that_is_down_is_done_without(
    hub: HubServer, references: References, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was derived before is taken, with a note; what was not is the hub's failure."""
    await references.derive(f"hf:{REPO}", catalog)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = await references.derive(f"hf:{REPO}", catalog)
    assert found.commit == COMMIT
    assert "as it was when the hub answered: cannot reach Hugging Face" in found.notes[-1]
    with pytest.raises(HubFailure, match="cannot reach Hugging Face") as caught:
        await references.derive("hf:keeper/zoo", catalog)
    assert caught.value.tried
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubFailure, match="HF_HUB_OFFLINE is set"):
        await references.derive("hf:keeper/zoo", catalog)


@pytest.mark.parametrize(
    ("reference", "fault", "cause"),
    [
        ("hf:keeper/none", None, "not_found"),
        ("ms:keeper/none", None, "not_found"),
        ("hf:keeper/zoo", Fault(403, {"X-Error-Code": "GatedRepo"}), "gated_repo"),
        ("hf:keeper/zoo", Fault(429, {"Retry-After": "9999"}), "rate_limited"),
    ],
)
async def test_what_a_hub_refuses_is_told_by_its_cause(
    hub: HubServer,
    references: References,
    catalog: Catalog,
    reference: str,
    fault: Fault | None,
    cause: str,
) -> None:
    """The causes of downloads, with the way out."""
    if fault:
        hub.fail("api", *[fault] * 9)
    with pytest.raises(HubFailure) as caught:
        await references.derive(reference, catalog)
    assert caught.value.cause == cause


async def test_a_kept_file_that_is_spoilt_or_old_is_written_anew(
    hub: HubServer, references: References, catalog: Catalog, home: Path
) -> None:
    """Another version of Paddock may derive more; and people edit files."""
    first = await references.derive(f"hf:{REPO}@{COMMIT}", catalog)
    (path,) = (home / "derived").glob("*.yaml")
    good = path.read_text()
    for spoilt in ("", "name: x", good[: len(good) // 2], good.replace("paddock: ", "paddock: 9")):
        path.write_text(spoilt)
        hub.ranges.clear()
        assert await references.derive(f"hf:{REPO}@{COMMIT}", catalog) == first
        assert hub.ranges
        assert path.read_text() == good


async def test_weights_on_disk_are_derived_without_a_hub(
    references: References, catalog: Catalog, tmp_path: Path
) -> None:
    """A file, a folder of files, and safetensors; changed files are read again."""
    folder = tmp_path / "models"
    folder.mkdir()
    for quantization in ("Q2_K", "Q8_0"):
        name = f"tiny-mixtral.{quantization}.gguf"
        (folder / name).symlink_to(TINY / "ggufv2" / name)
    one = await references.derive(f"{folder}/tiny-mixtral.Q2_K.gguf", catalog)
    assert [v.quantization for v in one.spec.variants] == ["Q2_K"]
    # A built-in model has this name.
    assert one.spec.name == "models-tiny-mixtral"
    assert one.spec.local_paths == (str(folder),)
    every = await references.derive(f"{folder}/", catalog)
    assert [v.quantization for v in every.spec.variants] == ["Q2_K", "Q8_0"]
    (folder / "tiny-mixtral.Q8_0.gguf").unlink()
    again = await references.derive(str(folder), catalog, offline=True)
    assert [v.quantization for v in again.spec.variants] == ["Q2_K"]
    stored = await references.derive(str(TINY / "gptq" / "Int4"), catalog)
    assert [(v.format, v.quantization) for v in stored.spec.variants] == [("gptq", "Int4")]
    for missing in (f"{tmp_path}/none", f"{tmp_path}/none/x.gguf"):
        with pytest.raises(BadValue, match="cannot be read here: No such file"):
            await references.derive(missing, catalog)
    with pytest.raises(NoSpec, match="has no file of a model"):
        await references.derive(str(tmp_path), catalog)
    with pytest.raises(NoSpec, match=r"lion\.gguf is not there"):
        await references.derive(f"{folder}/lion.gguf", catalog)


async def test_the_name_of_a_built_in_model_is_left_to_it(
    hub: HubServer, references: References, catalog: Catalog
) -> None:
    """A repository called like one gets its owner's name before its own, and is what it is."""
    hub.repos["mistralai/Mixtral-8x7B-v0.1"] = dict(PYTORCH)
    found = await references.derive("hf:mistralai/Mixtral-8x7B-v0.1", catalog)
    assert found.spec.name == "mistralai-Mixtral-8x7B-v0.1"
    assert found.spec.architecture.layers == 2


# What is planned and allowed


async def planned(references: References, catalog: Catalog, **given: Any) -> LaunchPlan:
    """The plan of a launch as the gateway makes it."""
    asked = await references.resolve_reference(LaunchRequest.parse(**given), catalog)
    asked.check()
    host = probe_host(Path(os.environ["PADDOCK_HOME"]).parent, asked.paths)
    return asked.finish(resolve(asked.request, asked.catalog, [host]))


async def test_a_plan_says_what_it_was_derived_from(
    hub: HubServer, references: References, catalog: Catalog
) -> None:
    """It is launched under the repository's name, and the next command has the reference."""
    plan = await planned(references, catalog, model_name=f"hf:{REPO}")
    assert (plan.model, plan.model_id, plan.quantization) == ("zoo-GGUF", "zoo-GGUF", "Q4_0")
    assert plan.derived is not None
    assert (plan.derived.reference, plan.derived.commit) == (f"hf:{REPO}", COMMIT)
    assert plan.weights.revision == COMMIT
    assert plan.weights.trusted is None
    assert LaunchPlan.from_json(plan.to_json()) == plan
    assert launch_command(plan).startswith(f"paddock launch --model-name hf:{REPO} ")
    named = await planned(references, catalog, model_name=f"hf:{REPO}", model_uid="z")
    assert named.model_id == "z"
    with pytest.raises(BadValue, match="is for models by reference"):
        await planned(references, catalog, model_name="tiny-mixtral", trust=COMMIT)


Repository = dict[str, Content]
CODE: dict[str, Repository] = {
    "code": {**PYTORCH, "modeling_zoo.py": b"print()"},
    "auto_map": {
        **PYTORCH,
        "config.json": json.dumps(
            {**json.loads(PYTORCH["config.json"]), "auto_map": {"AutoModel": "zoo.Zoo"}}
        ).encode(),
    },
    "pickles": {
        **{name: data for name, data in PYTORCH.items() if name != "model.safetensors"},
        "pytorch_model.bin": b"pickle",
    },
}


@pytest.mark.parametrize(
    ("repository", "reason"),
    [
        ("code", "code in the repository (modeling_zoo.py)"),
        ("auto_map", "code in the repository (auto_map in config.json)"),
        ("pickles", "pickled weights and no safetensors (pytorch_model.bin)"),
    ],
)
async def test_code_runs_only_with_consent_for_the_very_commit(
    hub: HubServer,
    references: References,
    catalog: Catalog,
    home: Path,
    repository: str,
    reason: str,
) -> None:
    """It is refused with reason and command, allowed once it is named, and asked for anew later."""
    hub.repos["keeper/code"] = CODE[repository]

    async def weights(**given: Any) -> PlannedWeights:
        request = LaunchRequest.parse(model_name="hf:keeper/code", **given)
        asked = await references.resolve_reference(request, catalog)
        asked.check()
        variant, found = resolve_weights(asked.request, asked.catalog, [probe_host(home.parent)])
        references.consent(asked)
        return asked.allow(found, variant.format)

    with pytest.raises(NeedsConsent) as caught:
        await weights()
    assert reason in str(caught.value)
    assert str(caught.value).endswith(f"--trust {COMMIT}")
    with pytest.raises(BadValue, match=f"'{OTHER}': is not what hf:keeper/code is now.*{COMMIT}"):
        await weights(trust=OTHER)
    with pytest.raises(BadValue, match="is no commit"):
        await weights(trust="main")
    assert not (home / "consents.json").exists()
    assert (await weights(trust=COMMIT)).trusted == COMMIT
    assert json.loads((home / "consents.json").read_text()) == {
        "consents": [{"hub": "huggingface", "id": "keeper/code", "commit": COMMIT}]
    }
    assert (await weights()).trusted == COMMIT
    await weights(trust=COMMIT)
    assert len(json.loads((home / "consents.json").read_text())["consents"]) == 1
    hub.commits["keeper/code"] = OTHER
    with pytest.raises(NeedsConsent, match=f"--trust {OTHER}"):
        await weights()


async def test_gguf_needs_no_consent_beside_code(
    hub: HubServer, references: References, catalog: Catalog
) -> None:
    """Of a repository of both only the variant that would run code is refused."""
    hub.repos["keeper/both"] = {**CODE["code"], FILE: model_header()}
    plan = await planned(references, catalog, model_name="hf:keeper/both")
    assert (plan.format, plan.weights.trusted) == ("ggufv2", None)
    assert plan.derived is not None
    assert f"pytorch is left out: it needs --trust {COMMIT}" in plan.derived.notes[-1]
    asked = await references.resolve_reference(
        LaunchRequest.parse(model_name="hf:keeper/both"), catalog
    )
    assert {v.format for v in asked.catalog.lookup("hf:keeper/both").variants} == {"ggufv2"}
    agreed = await references.resolve_reference(
        LaunchRequest.parse(model_name="hf:keeper/both", trust=COMMIT), catalog
    )
    formats = {v.format for v in agreed.catalog.lookup("hf:keeper/both").variants}
    assert formats == {"ggufv2", "pytorch"}
    with pytest.raises(NeedsConsent, match=r"modeling_zoo\.py"):
        await planned(references, catalog, model_name="hf:keeper/both", format="pytorch")


async def test_a_spoilt_file_of_consents_allows_nothing(
    hub: HubServer, references: References, catalog: Catalog, home: Path
) -> None:
    """What cannot be read is no consent."""
    hub.repos["keeper/code"] = CODE["code"]
    os.makedirs(home, exist_ok=True)
    for spoilt in ("", "[]", '{"consents": 3}', '{"consents": [["huggingface"]]}'):
        (home / "consents.json").write_text(spoilt)
        with pytest.raises(NeedsConsent):
            await planned(references, catalog, model_name="hf:keeper/code")


@pytest.mark.parametrize("name", HUBS)
@pytest.mark.parametrize("repository", ["code", "pickles"])
def test_what_is_trusted_comes_and_nothing_else(
    hub: HubServer, terms: Terms, name: Any, repository: str
) -> None:
    """Code and pickles with the consent alone, and only while the files are those of then."""
    hub.repos["keeper/code"] = dict(CODE[repository])
    pin = found_at(Reference(name, "keeper/code"), terms).commit
    planned = PlannedWeights(hub=name, id="keeper/code", size_bytes=1, here=False)

    def come(weights: PlannedWeights) -> set[str]:
        folder = fetch(weights, terms, lambda _: None, threading.Event())
        assert folder is not None
        return {path.name for path in folder.iterdir()}

    odd = {"modeling_zoo.py", "pytorch_model.bin"} & set(CODE[repository])
    if repository == "pickles":
        with pytest.raises(HubFailure, match="only pickled weights"):
            come(planned)
    else:
        assert not come(planned) & odd
    assert come(planned.model_copy(update={"trusted": pin})) >= odd
    changed = hashlib.sha256(b"other").hexdigest()[:40]
    hub.repos["keeper/code"]["modeling_zoo.py"] = b"import os"
    if name == "huggingface":
        hub.commits["keeper/code"] = changed
    unknown = replace(terms, home=terms.home / "other")
    with pytest.raises(HubFailure, match=f"{pin} is what was trusted"):
        fetch(
            planned.model_copy(update={"trusted": pin, "revision": "dev"}),
            unknown,
            lambda _: None,
            threading.Event(),
        )


async def test_plans_ask_a_hub_once_a_minute_and_launches_each_time(
    hub: HubServer, references: References, catalog: Catalog
) -> None:
    """A page that shows a plan asks again and again; what is launched is as the hub has it now."""
    request = LaunchRequest.parse(model_name=f"hf:{REPO}")
    first = await references.resolve_reference(request, catalog, PLAN_AGE)
    hub.asked.clear()
    assert (await references.resolve_reference(request, catalog, PLAN_AGE)).derived == first.derived
    assert asked_for(hub) == []
    await references.resolve_reference(request, catalog)
    assert asked_for(hub) != []
