"""Specs of a user's own: Xinference's JSON becomes a spec, YAML is kept as it was written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from paddock.registry import custom, reader
from paddock.registry.catalog import specs_root
from paddock.registry.custom import Library, read_upload, to_yaml
from paddock.registry.errors import BadValue, InvalidSpec, NotFound, UnknownName
from paddock.registry.reader import parse_spec
from tests.catalog import CATALOG

YAML = (specs_root() / "llm" / "tiny-mixtral.yaml").read_text("utf-8")
OWN = YAML.replace("name: tiny-mixtral", "name: my-own", 1)
FLAT: dict[str, Any] = {
    "version": 2,
    "context_length": 4096,
    "model_name": "my-flat",
    "model_lang": ["en", "zh"],
    "model_ability": ["chat"],
    "model_description": "A description.",
    "model_family": "mixtral-v0.1",
    "model_specs": [
        {
            "model_format": "pytorch",
            "model_size_in_billions": "46_7",
            "quantization": "none",
            "model_hub": "huggingface",
            "model_id": "someone/My-Mixtral",
            "model_revision": "main",
        },
        {
            "model_format": "pytorch",
            "model_size_in_billions": 46.7,
            "quantization": "none",
            "model_hub": "modelscope",
            "model_id": "someone/My-Mixtral",
        },
        {
            "model_format": "ggufv2",
            "model_size_in_billions": "46_7",
            "quantization": "Q4_K_M",
            "model_id": "someone/My-Mixtral-GGUF",
            "model_file_name_template": "my.{quantization}.gguf",
        },
    ],
    "stop": ["</s>", "</s>"],
    "stop_token_ids": [2],
    "chat_template": "",
    "is_builtin": False,
}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "specs", tmp_path / "index")


def flat(**changes: Any) -> str:
    """Xinference's JSON with other values at the top; None leaves the field out."""
    return json.dumps({k: v for k, v in {**FLAT, **changes}.items() if v is not None})


def flat_spec(**changes: Any) -> str:
    """Xinference's JSON with one entry of `model_specs`, changed."""
    return flat(model_specs=[{**FLAT["model_specs"][0], **changes}])


def split_spec(parts: Any, template: str | None) -> str:
    """Xinference's JSON with one GGUF that is kept in parts."""
    return flat_spec(
        model_format="ggufv2",
        quantization="Q8_0",
        quantization_parts=parts,
        model_file_name_split_template=template,
        model_file_name_template="my.{quantization}.gguf",
    )


def test_file_in_parts_is_named_without_them(library: Library) -> None:
    """Their template for parts, and their list of them, come to the name of the whole."""
    names = ["00001-of-00002", "00002-of-00002"]
    text = split_spec({"Q8_0": names}, "{quantization}/my-{quantization}-{part}.gguf")
    (variant,) = library.register("LLM", text).variants
    assert [source.file for source in variant.sources] == ["Q8_0/my-Q8_0.gguf"]


def test_flat_json_becomes_a_spec(library: Library) -> None:
    """Hubs of one variant are its sources, the family lends its shape, chatting implies more."""
    spec = library.register("LLM", flat())
    assert (spec.name, spec.context_length, spec.languages) == ("my-flat", 4096, ("en", "zh"))
    assert spec.abilities == ("generate", "chat")
    torch, gguf = spec.variants
    assert [(s.hub, s.id, s.revision) for s in torch.sources] == [
        ("huggingface", "someone/My-Mixtral", "main"),
        ("modelscope", "someone/My-Mixtral", None),
    ]
    assert (gguf.quantization, gguf.sources[0].file) == ("Q4_K_M", "my.Q4_K_M.gguf")
    assert gguf.engines == ("llama.cpp",)
    assert spec.architecture == library.catalog().lookup("mixtral-v0.1").architecture
    assert spec.stop == ("</s>",)
    assert spec.notes is not None
    assert "mixtral-v0.1's" in spec.notes
    assert "stop_token_ids" in spec.notes


def test_what_is_kept_is_read_back_the_same(library: Library, tmp_path: Path) -> None:
    """The file in the folder is Paddock's YAML, and another library finds the same model in it."""
    spec = library.register("LLM", flat())
    path = tmp_path / "specs" / "my-flat.yaml"
    assert parse_spec(path.read_bytes(), str(path)) == spec
    other = Library(tmp_path / "specs", tmp_path / "index")
    assert other.catalog().lookup("MY-FLAT") == spec
    assert other.catalog().is_custom("my-flat")
    assert not other.catalog().is_custom("tiny-mixtral")


def test_yaml_is_kept_as_it_was_written(library: Library, tmp_path: Path) -> None:
    """Comments and order survive."""
    text = f"# mine\n{OWN}"
    library.register("LLM", text)
    assert (tmp_path / "specs" / "my-own.yaml").read_text("utf-8") == text


@pytest.mark.parametrize("spec", list(CATALOG), ids=lambda spec: spec.name)
def test_every_built_in_spec_survives_being_written(spec: Any) -> None:
    """Writing a spec and reading it loses nothing."""
    assert parse_spec(to_yaml(spec).encode(), "x") == spec


def test_catalogue_follows_the_folder(library: Library, tmp_path: Path) -> None:
    """A file that is put into the folder, or taken out of it, counts at once."""
    before = library.catalog()
    assert library.catalog() is before
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "mine.yaml").write_text(OWN)
    assert "my-own" in library.catalog().names()
    library.unregister("LLM", "my-own")
    assert "my-own" not in library.catalog().names()


def test_few_changes_are_seen_at_once(library: Library, tmp_path: Path) -> None:
    """An event loop reads a file or two itself: what is put into the folder counts with its use."""
    library.present()
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "mine.yaml").write_text(OWN)
    assert "my-own" in library.present().names()


@pytest.mark.parametrize("limit", ["QUICK_FILES", "QUICK_CHANGES"])
def test_many_files_are_read_in_a_thread(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Meanwhile the catalogue is the last one; what was registered here is in it at once."""
    monkeypatch.setattr(custom, limit, 0)
    monkeypatch.setattr(custom, "LOOK_SECONDS", 0.0)
    before = library.present()
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "mine.yaml").write_text(OWN)
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    assert library.present() is before
    for thread in threads:
        thread.join()
    assert len(threads) == 1
    assert "my-own" in library.present().names()
    library.register("LLM", flat(model_name="at-once"))
    assert "at-once" in library.present().names()
    library.unregister("LLM", "at-once")
    assert "at-once" not in library.present().names()


def test_registering_reads_no_other_spec(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a registration reads its own."""
    library.catalog()
    read: list[str] = []
    examine = reader.examine

    def noted(data: bytes, path: str) -> Any:
        read.append(Path(path).name)
        return examine(data, path)

    monkeypatch.setattr(reader, "examine", noted)
    library.register("LLM", OWN)
    assert set(read) <= {"my-own.yaml", "model"}
    assert "my-own" in library.catalog().names()


@pytest.mark.parametrize("name", ["tiny-mixtral", "TINY-Mixtral", "mixtral-8x7b"])
def test_built_in_name_or_alias_is_not_taken(library: Library, tmp_path: Path, name: str) -> None:
    """A name that came with Paddock keeps its meaning, whatever its case."""
    with pytest.raises(BadValue, match="is the built-in"):
        library.register("LLM", flat(model_name=name))
    with pytest.raises(BadValue, match="is the built-in"):
        library.register("LLM", OWN.replace("my-own", f"other\naliases: [{name}]", 1))
    assert not (tmp_path / "specs").exists()


@pytest.mark.parametrize(
    "text", ["a: b", "- x", "null", "~", "0x1F", "a\n\n  b # c\n", "é☃🦏", "\t", "a\x85 b"]
)
def test_text_of_any_kind_is_kept(library: Library, tmp_path: Path, text: str) -> None:
    """Whatever YAML might make of it, a template and a stop text are read back as they came."""
    spec = library.register("LLM", flat(chat_template=text, stop=[text, "%s{}"]))
    assert (spec.chat_template, spec.stop) == (text, (text, "%s{}"))
    assert library.catalog().lookup("my-flat") == spec


def test_name_is_registered_once(library: Library) -> None:
    """A second model of the name is refused with the command that makes room for it."""
    library.register("LLM", OWN)
    with pytest.raises(BadValue, match="paddock unregister --model-name my-own"):
        library.register("LLM", flat(model_name="My-Own"))
    library.unregister("LLM", "my-own")
    assert library.register("LLM", flat(model_name="my-own")).context_length == 4096


def test_built_in_and_unknown_models_are_not_unregistered(library: Library) -> None:
    """What came with Paddock stays; what is not there, or of another type, is not found."""
    with pytest.raises(BadValue, match="built in"):
        library.unregister("LLM", "tiny-mixtral")
    with pytest.raises(NotFound, match="nobody"):
        library.unregister("LLM", "nobody")
    with pytest.raises(NotFound, match="of type LLM"):
        library.unregister("embedding", "tiny-mixtral")


def test_unknown_family_gets_a_shape_of_its_size(library: Library) -> None:
    """The shape is reckoned, and the notes say that it is."""
    text = flat(model_family="my-family", architectures=["LlamaForCausalLM"])
    spec = read_upload("LLM", text, library.catalog())[0]
    shape = spec.architecture
    assert (shape.name, shape.parameters) == ("LlamaForCausalLM", 46_700_000_000)
    made = 12 * shape.layers * shape.hidden_size**2
    assert abs(made - shape.parameters) < 0.05 * shape.parameters
    assert "reckoned" in (spec.notes or "")


def test_embedding_has_its_dimensions(library: Library) -> None:
    """An embedding's JSON has `dimensions`, `max_tokens` and `language` in place of others."""
    text = flat(
        model_lang=None, model_ability=None, context_length=None, language=["en"], max_tokens=512,
        dimensions=384,
    )  # fmt: skip
    spec = read_upload("embedding", text, library.catalog())[0]
    assert (spec.type, spec.abilities, spec.context_length) == ("embedding", ("embed",), 512)
    assert spec.architecture.hidden_size == 384


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("/srv/models/my", ("/srv/models/my", None)),
        ("file:///srv/my%2Bown/x.Q4_K_M.gguf", ("/srv/my+own", "x.Q4_K_M.gguf")),
    ],
)
def test_local_path_is_a_source(library: Library, uri: str, source: tuple[str, str]) -> None:
    """`model_uri` is an absolute path, of a folder or of a GGUF file."""
    gguf = uri.endswith(".gguf")
    text = flat_spec(model_uri=uri, model_format="ggufv2" if gguf else "pytorch")
    spec = read_upload("LLM", text, library.catalog())[0]
    found = spec.variants[0].sources[0]
    assert (found.hub, found.id, found.file) == ("path", *source)
    assert spec.local_paths == (source[0],)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (flat(model_name="../evil"), "model_name"),
        (flat(model_name=7), "model_name"),
        (flat(context_length=-1), "context_length"),
        (flat(model_lang="en"), "model_lang"),
        (flat(model_ability=["fly"]), "model_ability"),
        (flat(model_specs=[]), "model_specs"),
        (flat(model_specs=[7]), r"model_specs\[0\]"),
        (flat_spec(model_format="exe"), r"model_specs\[0\]\.model_format"),
        (flat_spec(model_size_in_billions="big"), r"model_specs\[0\]\.model_size_in_billions"),
        (flat_spec(model_id="../../etc"), r"model_specs\[0\]\.model_id"),
        (flat_spec(model_id=None), r"model_specs\[0\]\.model_id"),
        (flat_spec(model_hub="nowhere"), r"model_specs\[0\]\.model_hub"),
        (flat_spec(quantization="a b"), r"model_specs\[0\]\.quantization"),
        (flat_spec(model_uri="s3://bucket/x"), r"model_specs\[0\]\.model_uri"),
        (flat_spec(model_uri="/srv/../etc"), r"model_specs\[0\]\.model_uri"),
        (flat_spec(model_format="ggufv2"), r"model_specs\[0\]\.model_file_name_template"),
        (
            split_spec({"Q8_0": ["a", "b"]}, "my.{quantization}.gguf-{part}"),
            r"model_specs\[0\]\.quantization_parts",
        ),
        (split_spec({"Q8_0": 3}, "{part}.gguf"), r"model_specs\[0\]\.quantization_parts"),
        (split_spec(["Q8_0"], "{part}.gguf"), r"model_specs\[0\]\.quantization_parts"),
        (split_spec({"Q8_0": ["a"]}, None), r"model_specs\[0\]\.model_file_name_split_template"),
        (flat(model_specs=[*FLAT["model_specs"], {**FLAT["model_specs"][2], "model_id": "x"}]),
         r"model_specs\[3\]\.model_id"),
        (flat(model_description="a \ud800 b"), "model_description"),
    ],
)  # fmt: skip
def test_wrong_json_is_refused_by_their_name_of_the_field(
    library: Library, tmp_path: Path, text: str, says: str
) -> None:
    """The message names the field as it was sent, and nothing is kept."""
    with pytest.raises(BadValue, match=f"^{says} "):
        library.register("LLM", text)
    assert not (tmp_path / "specs").exists()


def test_wrong_yaml_is_refused_with_its_line(library: Library) -> None:
    """The message has line, field and reason; another type than it was sent for is one."""
    with pytest.raises(InvalidSpec, match=r"model:\d+: context_length:"):
        library.register("LLM", OWN.replace("context_length: 2048", "context_length: many"))
    with pytest.raises(BadValue, match="embedding"):
        library.register("embedding", OWN)
    with pytest.raises(UnknownName):
        library.catalog().lookup("my-own")


EMBEDDER = {"model_name": "my-embedder", "dimensions": 384, "max_tokens": 512, "language": ["en"]}


@pytest.mark.parametrize(
    ("more", "source"),
    [
        ({"model_uri": "/m/my embedder"}, ("path", "/m/my embedder", None)),
        ({"model_uri": "file:///m/e%20b#1"}, ("path", "/m/e b#1", None)),
        ({"model_id": "a/b", "model_revision": "main"}, ("huggingface", "a/b", None)),
        ({"model_id": "a/b", "model_hub": "modelscope"}, ("modelscope", "a/b", None)),
        ({"model_uri": "/m/e.Q8_0.gguf"}, ("path", "/m", "e.Q8_0.gguf")),
    ],
)
@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_an_older_registration_has_its_one_variant_at_the_top(
    kind: str, more: dict[str, Any], source: tuple[str, str, str | None]
) -> None:
    """Xinference wrote embedders and rerankers so before they had `model_specs`."""
    spec, _ = read_upload(kind, json.dumps({**EMBEDDER, **more}), CATALOG)
    (variant,) = spec.variants
    (found,) = variant.sources
    assert (found.hub, found.id, found.file) == source
    assert spec.context_length == 512


def test_an_older_registration_without_a_place_is_told_what_it_needs() -> None:
    """And one of another type is told by which."""
    with pytest.raises(BadValue, match="with model_format and model_uri or model_id"):
        read_upload("embedding", json.dumps(EMBEDDER), CATALOG)
    with pytest.raises(BadValue, match="--model-type embedding"):
        read_upload("LLM", json.dumps({**EMBEDDER, "model_id": "a/b"}), CATALOG)


@pytest.mark.parametrize("text", [OWN, json.dumps(FLAT), json.dumps([FLAT])])
def test_a_byte_order_mark_and_a_list_of_one_are_taken(text: str) -> None:
    """Editors of Windows write the one, and Xinference's files are the other."""
    if not text.startswith("["):
        assert read_upload("LLM", f"\ufeff{text}", CATALOG)[0].name.startswith("my-")
    assert read_upload("LLM", text, CATALOG)[0].name.startswith("my-")
    with pytest.raises(BadValue, match=r"2 models.*register each model by itself"):
        read_upload("LLM", json.dumps([FLAT, FLAT]), CATALOG)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Wherever a spec is read from."""
    assert parse_spec(b"\xef\xbb\xbf" + OWN.encode(), "x").name == "my-own"
