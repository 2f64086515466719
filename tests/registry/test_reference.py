"""References: what names a model that no spec names, and what only looks like it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.registry.errors import BadValue
from paddock.registry.reference import (
    Reference,
    absolute,
    hosts,
    is_reference,
    parse_reference,
    split_tag,
)

# The same examples each time, however slow the machine is.
FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOSTS = hosts({"HF_ENDPOINT": "http://127.0.0.1:8080", "MODELSCOPE_ENDPOINT": "mirror.example"})
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "TheBloke/Mixtral-8x7B-v0.1-GGUF"
FILE = "mixtral-8x7b-v0.1.Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("text", "hub", "rest"),
    [
        (f"hf:{REPO}", "huggingface", (REPO, None, None)),
        (f" HF:{REPO} ", "huggingface", (REPO, None, None)),
        (f"hf:{REPO}@main", "huggingface", (REPO, "main", None)),
        (f"hf:{REPO}@refs/pr/1", "huggingface", (REPO, "refs/pr/1", None)),
        (f"hf:{REPO}@main/{FILE}", "huggingface", (REPO, "main", FILE)),
        (f"hf:{REPO}@refs%2Fpr%2F1/{FILE}", "huggingface", (REPO, "refs/pr/1", FILE)),
        (f"ms:{REPO}@v1.0", "modelscope", (REPO, "v1.0", None)),
        (f"https://huggingface.co/{REPO}", "huggingface", (REPO, None, None)),
        (f"https://huggingface.co/{REPO}/", "huggingface", (REPO, None, None)),
        (f"https://hf.co/{REPO}?library=x#files", "huggingface", (REPO, None, None)),
        (f"https://huggingface.co/{REPO}/tree/main", "huggingface", (REPO, "main", None)),
        (
            f"https://huggingface.co/{REPO}/tree/refs%2Fpr%2F1",
            "huggingface",
            (REPO, "refs/pr/1", None),
        ),
        (f"https://huggingface.co/{REPO}/blob/main/{FILE}", "huggingface", (REPO, "main", FILE)),
        (
            f"https://huggingface.co/{REPO}/resolve/{COMMIT}/q4/{FILE}?download=true",
            "huggingface",
            (REPO, COMMIT, f"q4/{FILE}"),
        ),
        (f"http://127.0.0.1:8080/{REPO}", "huggingface", (REPO, None, None)),
        (f"https://modelscope.cn/models/{REPO}", "modelscope", (REPO, None, None)),
        (f"https://www.modelscope.cn/models/{REPO}/summary", "modelscope", (REPO, None, None)),
        (f"https://modelscope.cn/models/{REPO}/files", "modelscope", (REPO, None, None)),
        (f"https://modelscope.cn/models/{REPO}/tree/dev", "modelscope", (REPO, "dev", None)),
        (
            f"https://modelscope.cn/models/{REPO}/file/view/master/{FILE}?status=2",
            "modelscope",
            (REPO, "master", FILE),
        ),
        (
            f"https://mirror.example/models/{REPO}/resolve/master/{FILE}",
            "modelscope",
            (REPO, "master", FILE),
        ),
        ("/srv/models/zoo", "path", ("/srv/models/zoo", None, None)),
        ("/srv//models/./zoo/", "path", ("/srv/models/zoo", None, None)),
        (f"/srv/models/{FILE}", "path", ("/srv/models", None, FILE)),
        ("/srv/my models/a b.gguf", "path", ("/srv/my models", None, "a b.gguf")),
        ("/模型/小象.gguf", "path", ("/模型", None, "小象.gguf")),
        ("/m/a@b(1)~#2/x#1,y.gguf", "path", ("/m/a@b(1)~#2", None, "x#1,y.gguf")),
        ("/m/a:b/v1..2", "path", ("/m/a:b/v1..2", None, None)),
        ("/m/[ü] 'x' & $y;/-z", "path", ("/m/[ü] 'x' & $y;/-z", None, None)),
        ("file:///m/a%20b/x%231.gguf", "path", ("/m/a b", None, "x#1.gguf")),
        ("file://localhost/m/x#1?y.gguf", "path", ("/m", None, "x#1?y.gguf")),
        ("file:/m/zoo", "path", ("/m/zoo", None, None)),
        (f"hf.co/{REPO}", "huggingface", (REPO, None, None)),
        (f"huggingface.co/{REPO}/blob/main/{FILE}", "huggingface", (REPO, "main", FILE)),
        (f"modelscope.cn/models/{REPO}", "modelscope", (REPO, None, None)),
    ],
)
def test_a_reference_is_read_and_written(
    text: str, hub: str, rest: tuple[str, str | None, str | None]
) -> None:
    """Each form gives hub, id, revision and file, and its shortest form gives the same again."""
    assert is_reference(text)
    found = parse_reference(text, HOSTS)
    assert (found.hub, (found.id, found.revision, found.file)) == (hub, rest)
    assert parse_reference(found.text, HOSTS) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hf:", "is not owner/name"),
        ("hf:mixtral", "is not owner/name"),
        ("hf:a/b/c", "is not owner/name"),
        ("hf:../etc", "is not owner/name"),
        ("hf:a/b--c", "'--'"),
        ("hf:a/b@", "leave the @ out"),
        ("hf:a/b@..", "is not the name of a revision"),
        ("hf:a/b@x.gguf", "behind a revision"),
        ("hf:a/b@main/{quantization}.gguf", "braces"),
        ("hf:a/{quantization}", "braces"),
        ("hf:a/b@main/../x.gguf", "is not a file name"),
        ("hf:a/\n", "no reference|is not owner/name"),
        ("./models/zoo", "must be absolute"),
        ("~/zoo", "must be absolute"),
        ("/srv/../etc", "is not an absolute path"),
        ("/srv/./../etc", "is not an absolute path"),
        ("file://host.example/m/x.gguf", "must be file:///path"),
        ("file:x.gguf", "must be file:///path"),
        ("hf:a/b:Q4_K_M", "--quantization Q4_K_M, and the model as hf:a/b"),
        ("hf.co/a/b/commits/main", "is no address of a model"),
        ("/", "is not an absolute path"),
        ("https://example.com/a/b", "at none of the hubs' hosts (127.0.0.1:8080, "),
        ("https://huggingface.co.example.com/a/b", "at none of the hubs' hosts"),
        ("https://user@huggingface.co/a/b", "at none of the hubs' hosts"),
        ("https://huggingface.co/gpt2", "is no address of a model"),
        ("https://huggingface.co/datasets/a/b", "is no address of a model"),
        ("https://huggingface.co/a/b/commits/main", "is no address of a model"),
        ("https://huggingface.co/a/b/blob/main/config.json", "else: hf:a/b"),
        ("https://modelscope.cn/a/b", "file: https://modelscope.cn/models/owner/name"),
        ("https://[::1/a/b", "is no address"),
        ("hf:" + "a" * 600, "is no reference"),
    ],
)
def test_a_wrong_reference_is_refused_by_its_value(text: str, says: str) -> None:
    """The message has the value and what would do."""
    with pytest.raises(BadValue) as caught:
        parse_reference(text, HOSTS)
    assert any(part in str(caught.value) for part in says.split("|")), str(caught.value)
    assert text.strip()[:100].partition("\n")[0] in str(caught.value)


@pytest.mark.parametrize("character", ["\x07", "\n", "\x7f", "\u2028", "\ud800"])
def test_a_path_with_control_characters_is_refused(character: str) -> None:
    """It would break the lines of logs and files."""
    with pytest.raises(BadValue, match="is no reference"):
        parse_reference(f"/srv/a{character}b", HOSTS)


@pytest.mark.parametrize("name", ["mixtral-v0.1", "hf", "msx:a/b", "a/b", "", "tiny.gguf"])
def test_names_are_no_references(name: str) -> None:
    """What could be the name of a spec is looked up in the catalogue."""
    assert not is_reference(name)


def test_relative_paths_are_made_absolute_where_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway works in another folder; everything else stays as it is."""
    monkeypatch.chdir(tmp_path)
    assert absolute("./a.gguf") == str(tmp_path / "a.gguf")
    assert absolute("../a") == str(tmp_path.parent / "a")
    assert absolute("~") == os.path.expanduser("~")
    assert absolute("hf:a/b") == "hf:a/b"
    assert absolute("tiny-mixtral") == "tiny-mixtral"
    with pytest.raises(BadValue):
        absolute("~nobody-of-this-name/x")


def test_a_mirror_may_be_of_both_hubs() -> None:
    """The form of the address tells which is meant."""
    both = hosts({"HF_ENDPOINT": "http://[::1]:80", "MODELSCOPE_ENDPOINT": "http://[::1]:80/"})
    assert parse_reference("http://[::1]:80/a/b", both).text == "hf:a/b"
    assert parse_reference("http://[::1]:80/models/a/b", both).text == "ms:a/b"


PIECES = st.lists(
    st.sampled_from(
        ["hf:", "ms:", "https://", "huggingface.co", "modelscope.cn", "/", "models", "a", "b-c",
         "@", "main", "blob", "resolve", "tree", "..", "%2F", "%00", ".gguf", "{", "x y", "?", "#",
         ":", "\x00", "é", "[", "]", "~", "."]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@settings(FUZZ, max_examples=1500)
@given(PIECES | st.text(max_size=40))
def test_any_text_is_a_reference_or_a_bad_value(text: str) -> None:
    """Nothing else ever comes out, and what is taken follows a source's grammar."""
    try:
        found = parse_reference(text, HOSTS)
    except BadValue:
        return
    assert isinstance(found, Reference)
    assert ".." not in found.id.split("/")
    assert parse_reference(found.text, HOSTS) == found


@pytest.mark.parametrize(
    ("name", "head", "tag"),
    [
        ("hf:a/b:Q4_K_M", "hf:a/b", "Q4_K_M"),
        ("hf.co/a/b:IQ4_XS", "hf.co/a/b", "IQ4_XS"),
        ("https://huggingface.co/a/b:UD-Q4_K_XL", "https://huggingface.co/a/b", "UD-Q4_K_XL"),
        ("ms:a/b@main:Q8_0", "ms:a/b@main", "Q8_0"),
        ("hf:a/b", "hf:a/b", None),
        ("/m/a:b", "/m/a:b", None),
        ("~/a:b", "~/a:b", None),
        ("file:///m/a:b", "file:///m/a:b", None),
        ("llama3:8b", "llama3:8b", None),
        ("http://127.0.0.1:8080/a/b", "http://127.0.0.1:8080/a/b", None),
    ],
)
def test_a_quantization_may_stand_behind_a_colon(name: str, head: str, tag: str | None) -> None:
    """As Ollama and llama.cpp have it; paths keep their colons."""
    assert split_tag(name) == (head, tag)


def test_the_name_of_a_file_that_is_there_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As people type it: without ./; a name that is no file is left to the catalogue."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x 1.gguf").touch()
    assert absolute("p/x 1.gguf") == str(tmp_path / "p" / "x 1.gguf")
    assert absolute("p/y.gguf") == "p/y.gguf"
    assert absolute("p") == "p"


@pytest.mark.parametrize("endpoint", ["", "http://[::1", "https://", "mirror.example"])
def test_an_odd_endpoint_spoils_no_other_host(endpoint: str) -> None:
    """Its client says what is wrong with it; addresses of the hub itself are read all the same."""
    known = hosts({"HF_ENDPOINT": endpoint})
    assert parse_reference("https://huggingface.co/a/b", known).id == "a/b"
    assert "" not in known
