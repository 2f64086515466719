"""Names, wrong files, and the compiled index."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import paddock
from paddock.registry import catalog as module
from paddock.registry import reader
from paddock.registry.catalog import Catalog, specs_root
from paddock.registry.errors import UnknownName
from paddock.registry.spec import ModelSpec

TINY = (specs_root() / "llm" / "tiny-mixtral.yaml").read_text("utf-8")


def write(folder: Path, name: str, *, aliases: str = "", file: str = "", text: str = TINY) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / (file or f"{name}.yaml")
    named = text.replace("name: tiny-mixtral", f"name: {name}\naliases: [{aliases}]")
    path.write_text(named, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "llm"
    write(folder, "alpha-v1", aliases="first, the-First.one")
    write(folder, "beta-v1")
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache" / "catalog.index"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose YAML was parsed since the test began."""
    parsed: list[str] = []
    examine = reader.examine

    def watched(data: bytes, path: str) -> object:
        parsed.append(Path(path).name)
        return examine(data, path)

    monkeypatch.setattr(reader, "examine", watched)
    return parsed


def test_lookup_ignores_case_and_knows_aliases(folder: Path) -> None:
    """A name or an alias, in any case and with stray blanks, finds the spec."""
    catalog = Catalog.load([folder])
    for name in ("alpha-v1", "ALPHA-V1", " Alpha-v1 ", "first", "FIRST", "the-first.ONE"):
        assert catalog.lookup(name).name == "alpha-v1"
    assert catalog.path("First") == folder / "alpha-v1.yaml"


def test_an_unknown_name_is_answered_with_near_ones(folder: Path) -> None:
    """The error lists the nearest names, and all of them while they are few."""
    with pytest.raises(UnknownName) as caught:
        Catalog.load([folder]).lookup("alfa-v1")
    error = caught.value
    assert (error.kind, error.value) == ("model", "alfa-v1")
    assert error.close[0] == "alpha-v1"
    assert set(error.known) == {"alpha-v1", "first", "the-First.one", "beta-v1"}


@pytest.mark.parametrize("name", ["", " ", "\x00", "x" * 10_000, "../alpha-v1", "模型"])
def test_any_text_may_be_looked_up(folder: Path, name: str) -> None:
    """Whatever a user types that names no model is an `UnknownName`."""
    with pytest.raises(UnknownName):
        Catalog.load([folder]).lookup(name)


def test_near_names_are_found_among_many(folder: Path) -> None:
    """With many models, the nearest are still found, and a part is never listed as all."""
    for number in range(60):
        write(folder, f"gamma-{number:02}", aliases=f"other-{number:02}")
    catalog = Catalog.load([folder])
    for typed, meant in (("bta-v1", "beta-v1"), ("gama-42", "gamma-42"), ("ALPHAv1", "alpha-v1")):
        with pytest.raises(UnknownName) as caught:
            catalog.lookup(typed)
        assert meant in caught.value.close
        assert caught.value.known == ()


def test_a_catalog_lists_its_models_in_the_order_of_files(folder: Path, tmp_path: Path) -> None:
    """Folders come in the order given, files by name; aliases are not models."""
    write(tmp_path / "custom", "aardvark")
    catalog = Catalog.load([folder, tmp_path / "missing", tmp_path / "custom"])
    assert catalog.names() == ("alpha-v1", "beta-v1", "aardvark")
    assert [spec.name for spec in catalog] == list(catalog.names())
    assert len(catalog) == 3


def test_one_wrong_file_takes_no_other_down(folder: Path) -> None:
    """Wrong files are listed with file, line and field; the others load."""
    write(folder, "broken", text=TINY.replace("layers: 2", "layers: two"))
    (folder / "empty.yaml").write_text("")
    (folder / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to(folder / "nowhere.yaml")
    os.mkfifo(folder / "pipe.yaml")
    catalog = Catalog.load([folder])
    assert catalog.names() == ("alpha-v1", "beta-v1")
    assert [Path(problem.path).name for problem in catalog.problems] == [
        "broken.yaml",
        "empty.yaml",
        "folder.yaml",
        "gone.yaml",
        "latin.yaml",
        "pipe.yaml",
    ]
    broken = catalog.problems[0]
    assert broken.name_of_field == "architecture.layers"
    assert (
        broken.line == (folder / "broken.yaml").read_text().splitlines().index("  layers: two") + 1
    )


def test_all_faults_of_a_file_are_listed(folder: Path) -> None:
    """A file with two faults is two problems."""
    write(
        folder, "bad", text=TINY.replace("layers: 2", "layers: x").replace("license:", "licence:")
    )
    problems = Catalog.load([folder]).problems
    assert [problem.name_of_field for problem in problems] == [
        "license",
        "licence",
        "architecture.layers",
    ]


def test_other_files_are_left_alone(folder: Path) -> None:
    """Hidden files, editors' copies and other suffixes are no specs; `.yml` is one."""
    for name in (".alpha.yaml", "alpha.yaml~", "#alpha.yaml#", "README.md", "schema.json"):
        (folder / name).write_text("not a spec")
    write(folder, "short", file="short.yml")
    catalog = Catalog.load([folder])
    assert catalog.names() == ("alpha-v1", "beta-v1", "short")
    assert catalog.problems == ()


@pytest.mark.parametrize(
    ("name", "aliases", "field", "claimed"),
    [
        ("ALPHA-v1", "", "name", "ALPHA-v1"),
        ("first", "", "name", "first"),
        ("zeta", "z, Alpha-V1", "aliases[1]", "Alpha-V1"),
        ("zeta", "FIRST", "aliases[0]", "FIRST"),
    ],
)
def test_two_specs_cannot_claim_one_name(
    folder: Path, name: str, aliases: str, field: str, claimed: str
) -> None:
    """The first file keeps the name; the second is left out, and the problem names both files."""
    second = write(folder, name, aliases=aliases, file="z.yaml")
    catalog = Catalog.load([folder])
    assert catalog.names() == ("alpha-v1", "beta-v1")
    (problem,) = catalog.problems
    assert (problem.path, problem.name_of_field) == (str(second), field)
    assert problem.line == (2 if field == "name" else 3)
    assert claimed in problem.reason
    assert str(folder / "alpha-v1.yaml") in problem.reason


def test_a_spec_that_was_refused_claims_nothing(folder: Path) -> None:
    """The names of a file that was left out are free for the next."""
    write(folder, "alpha-v1", aliases="delta", file="y.yaml")
    write(folder, "delta", file="z.yaml")
    assert Catalog.load([folder]).lookup("delta").name == "delta"


def test_a_fresh_index_is_used_as_it_is(folder: Path, index: Path, compiled: list[str]) -> None:
    """The second load parses no YAML and gives the same specs, names and problems."""
    (folder / "wrong.yaml").write_text("name: x\n")
    first = Catalog.load([folder], index)
    assert compiled == ["alpha-v1.yaml", "beta-v1.yaml", "wrong.yaml"]
    compiled.clear()
    second = Catalog.load([folder], index)
    assert compiled == []
    assert list(second) == list(first)
    assert second.names() == first.names()
    assert [vars(p) for p in second.problems] == [vars(p) for p in first.problems]
    assert second.path("first") == first.path("first")


def add(folder: Path) -> None:
    write(folder, "gamma")


def remove(folder: Path) -> None:
    (folder / "beta-v1.yaml").unlink()


def rename(folder: Path) -> None:
    (folder / "beta-v1.yaml").rename(folder / "b.yaml")


def change(folder: Path) -> None:
    write(folder, "beta-v1", aliases="grown")


def touch(folder: Path) -> None:
    os.utime(folder / "beta-v1.yaml", ns=(1, 1))


def swap(folder: Path) -> None:
    """Puts other text of the same length there, with the old modification time."""
    path = folder / "beta-v1.yaml"
    state = path.stat()
    fresh = path.with_suffix(".new")
    fresh.write_text(path.read_text().replace("beta-v1", "bete-v1"))
    os.utime(fresh, ns=(state.st_atime_ns, state.st_mtime_ns))
    fresh.replace(path)


@pytest.mark.parametrize("act", [add, remove, rename, change, touch, swap])
def test_a_changed_folder_makes_the_index_stale(
    folder: Path, index: Path, compiled: list[str], act: object
) -> None:
    """Any file added, removed, renamed or changed is seen by the next load, and indexed again.

    The other files are not read.
    """
    Catalog.load([folder], index)
    compiled.clear()
    assert callable(act)
    act(folder)
    again = Catalog.load([folder], index)
    assert len(compiled) == (0 if act is remove else 1)
    assert "alpha-v1.yaml" not in compiled
    assert again.names() == Catalog.load([folder]).names()
    compiled.clear()
    assert Catalog.load([folder], index).names() == again.names()
    assert compiled == []


def claim_before(folder: Path) -> None:
    """A file that comes first takes a name of another."""
    write(folder, "a", aliases="Beta-V1")


def claim_after(folder: Path) -> None:
    write(folder, "zeta", aliases="first")


def free(folder: Path) -> None:
    """The name that another file claims as well has no other owner any more."""
    (folder / "alpha-v1.yaml").unlink()


def repair(folder: Path) -> None:
    write(folder, "mended", file="wrong.yaml")


@pytest.mark.parametrize(
    "act", [add, remove, rename, change, swap, claim_before, claim_after, free, repair]
)
def test_what_is_read_anew_is_what_a_full_load_gives(folder: Path, act: object) -> None:
    """Conflicts between files come and go with either of them, whichever was read before."""
    (folder / "wrong.yaml").write_text("name: x\n")
    write(folder, "rival", aliases="first", file="r.yaml")
    before = Catalog.load([folder])
    assert before.changed() == 0
    assert callable(act)
    act(folder)
    assert before.changed() > 0
    again, full = Catalog.load([folder], before=before), Catalog.load([folder])
    assert list(again) == list(full)
    assert [again.path(name) for name in again.names()] == [full.path(n) for n in full.names()]
    assert [vars(p) for p in again.problems] == [vars(p) for p in full.problems]


def test_an_index_of_other_folders_is_stale(
    folder: Path, index: Path, tmp_path: Path, compiled: list[str]
) -> None:
    """An index belongs to its folders and their order."""
    write(tmp_path / "custom", "gamma")
    Catalog.load([folder], index)
    assert Catalog.load([tmp_path / "custom", folder], index).names()[0] == "gamma"
    assert Catalog.load([folder, tmp_path / "custom"], index).names()[-1] == "gamma"
    assert Catalog.load([folder], index).names() == ("alpha-v1", "beta-v1")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"\n",
        lambda data: data[:30],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: data[:-5] + b"#" + data[-4:],
        lambda data: data.replace(b"paddock-index", b"another-index"),
        lambda data: b"SQLite format 3\x00" + bytes(1000),
        lambda data: b"paddock-index x y z w\n{}",
        lambda data: bytes(range(256)) * 10,
    ],
)
def test_a_damaged_index_is_written_again(
    folder: Path, index: Path, compiled: list[str], damage: object
) -> None:
    """An unreadable, truncated or foreign index is never an error and never believed."""
    whole = list(Catalog.load([folder], index))
    good = index.read_bytes()
    assert callable(damage)
    index.write_bytes(damage(good))
    compiled.clear()
    assert list(Catalog.load([folder], index)) == whole
    assert len(compiled) == 2
    assert index.read_bytes() == good


def test_a_new_paddock_writes_the_index_again(
    folder: Path, index: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of another version, or of another schema, is not used."""
    Catalog.load([folder], index)
    compiled.clear()
    with monkeypatch.context() as patch:
        patch.setattr(paddock, "__version__", "999")
        Catalog.load([folder], index)
    assert len(compiled) == 2
    compiled.clear()
    monkeypatch.setattr(module, "_stamp", lambda: f"{paddock.__version__}-other")
    Catalog.load([folder], index)
    assert len(compiled) == 2


def test_an_index_that_cannot_be_written_is_no_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its folder is a file, the index a folder, or the disk full, specs load without it."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert len(Catalog.load([folder], blocked / "catalog.index")) == 2
    (tmp_path / "taken").mkdir()
    assert len(Catalog.load([folder], tmp_path / "taken")) == 2

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert len(Catalog.load([folder], tmp_path / "cache" / "catalog.index")) == 2
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_takes_no_files_is_no_error(folder: Path) -> None:
    """Where the index cannot be written, not even by root, specs load without it."""
    assert len(Catalog.load([folder], Path("/proc/self/fdinfo/catalog.index"))) == 2
    assert len(Catalog.load([folder], Path("/proc/nowhere/catalog.index"))) == 2


def test_loads_at_the_same_time_agree(folder: Path, index: Path) -> None:
    """Many readers that find no index each get the whole catalog, and leave one whole index."""
    found: list[tuple[str, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.append(Catalog.load([folder], index).names()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [("alpha-v1", "beta-v1")] * 8
    assert [path.name for path in index.parent.iterdir()] == ["catalog.index"]


def test_a_loaded_catalog_outlives_its_files(folder: Path, index: Path) -> None:
    """What was loaded stays as it was, whatever becomes of the index and the YAML."""
    Catalog.load([folder], index)
    catalog = Catalog.load([folder], index)
    index.write_bytes(b"gone")
    for path in folder.iterdir():
        path.unlink()
    assert catalog.lookup("first").name == "alpha-v1"


def test_a_fresh_index_needs_neither_pydantic_nor_yaml(folder: Path, index: Path) -> None:
    """A new process imports the heavy packages only when it looks a spec up, and never PyYAML."""
    Catalog.load([folder], index)
    code = f"""
import sys
from pathlib import Path
from paddock.registry.catalog import Catalog
catalog = Catalog.load([Path({str(folder)!r})], Path({str(index)!r}))
assert catalog.names() == ("alpha-v1", "beta-v1")
assert not {{"pydantic", "pydantic_core", "yaml"}} & set(sys.modules), "imported by the load"
assert catalog.lookup("FIRST").name == "alpha-v1"
assert "yaml" not in sys.modules, "imported by the lookup"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_specs_state_is_read_without_their_types() -> None:
    """The plain values are those that the types are made from, model by model."""
    catalog = Catalog.load()
    assert [ModelSpec.model_validate(raw) for raw in catalog.raw()] == list(catalog)
