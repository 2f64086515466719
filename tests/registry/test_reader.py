"""A wrong spec is refused with its file, line, field and reason."""

import os
from pathlib import Path

import pytest

from paddock.registry.catalog import specs_root
from paddock.registry.document import MAX_BYTES
from paddock.registry.errors import InvalidSpec
from paddock.registry.reader import examine, parse_spec, read_spec

GOOD = (specs_root() / "llm" / "mixtral-v0.1.yaml").read_text("utf-8")


def line_of(text: str, within: str) -> int:
    return within[: within.index(text)].count("\n") + 1


def test_an_underscore_in_a_size_is_a_decimal_point() -> None:
    """`size: 46_7`, unquoted, is the size 46_7 and not the integer 467 of YAML 1.1."""
    assert "size: 46_7\n" in GOOD
    assert {weights.size for weights in parse_spec(GOOD.encode(), "x").weights} == {"46_7"}


@pytest.mark.parametrize("written", ["46.7", "'46_7'", '"46.7"', "46.70"])
def test_a_size_may_be_written_in_any_spelling(written: str) -> None:
    """A point and quotes change nothing: the spec holds the canonical text."""
    text = GOOD.replace("size: 46_7", f"size: {written}")
    assert {weights.size for weights in parse_spec(text.encode(), "x").weights} == {"46_7"}


def test_a_language_called_no_is_norwegian() -> None:
    """`no` in a list of languages stays the text that it is."""
    text = GOOD.replace("[en, fr, it, de, es]", "[en, no]")
    assert parse_spec(text.encode(), "x").languages == ("en", "no")


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        ("license:", "licence:", "licence", "unknown field; did you mean license?"),
        ("  head_dim:", "  head_dims:", "architecture.head_dims", "did you mean head_dim?"),
        ("        id: mis", "        ID: mis", "weights[0].sources[0].ID", "did you mean id?"),
        ("layers: 32", "layers: many", "architecture.layers", "whole number"),
        ("layers: 32", "layers: 3.2", "architecture.layers", "whole number"),
        ("layers: 32", "layers: 0", "architecture.layers", "greater than or equal to 1"),
        ("layers: 32", "layers: 3__2", "architecture.layers", "whole number"),
        ("layers: 32", "layers: [32]", "architecture.layers", "whole number"),
        ("layers: 32", "layers: 9999999999999999", "architecture.layers", "less than or equal"),
        ("size: 46_7", "size: big", "weights[0].size", "such as 46_7"),
        ("size: 46_7", "size: [46_7]", "weights[0].size", "such as 46_7"),
        ("format: pytorch", "format: gguf", "weights[0].format", "not 'gguf'"),
        ("hub: modelscope", "hub: model", "weights[0].sources[1].hub", "'modelscope'"),
        ("abilities: [generate]", "abilities: [chat]", "abilities", "has the ability generate"),
        ("abilities: [generate]", "abilities: generate", "abilities", "must be a list"),
        ("abilities: [generate]", "abilities: []", "abilities", "at least one"),
        ("abilities: [generate]", "abilities: [generate, sing]", "abilities[1]", "not 'sing'"),
        ("[en, fr,", "[en, EN,", "languages[1]", "listed twice"),
        ("released: 2023-12-09", "released: 2023-13-09", "released", "month"),
        ("released: 2023-12-09", "released: 1702080000", "released", "a day such as"),
        ("name: mixtral-v0.1", "name: mixtral/v0.1", "name", "is not a name"),
        ("name: mixtral-v0.1", "name: ..", "name", "is not a name"),
        ("name: mixtral-v0.1", "name: mixtral..v0.1", "name", "is not a name"),
        ("name: mixtral-v0.1", "name: [a]", "name", "must be text"),
        ("context_length: 32768", "context_length: -1", "context_length", "whole number"),
        ("[mixtral-8x7b-v0.1,", "[Mixtral-v0.1,", "aliases[0]", "differ from the name"),
        ("key_value_heads: 8", "key_value_heads: 7", "architecture.key_value_heads", "shared out"),
        ("experts_per_token: 2", "experts_per_token: 9", "architecture.experts_per_token", "more"),
        ("12_879_925_248", "99_879_925_248", "architecture.active_parameters", "more than all"),
        ("recommended: [Q4", "recommended: [Q9", "recommended[0]", "'Q9_K_M'"),
        ("      Q6_K: 38", "      Q7_K: 38", "weights[2].size_bytes.Q7_K", "not one of"),
        ("Q6_K: 38_380_000_000", "Q6_K: 38 GB", "weights[2].size_bytes.Q6_K", "whole number"),
        ("-v0.1.{quantization}.gguf", "-v0.1.gguf", "weights[2].sources[0].file_template", "no {"),
        ("id: TheBloke/", "id: ../", "weights[1].sources[0].id", "is not owner/name"),
        ("revision: master", "revision: a b", "weights[0].sources[1].revision", "a revision"),
        ("homepage: https:", "homepage: javascript:", "homepage", "is not an http(s) address"),
    ],
)
def test_each_fault_is_named(old: str, new: str, field: str, reason: str) -> None:
    """The error carries the file, the line that is wrong, the field's full name and the reason."""
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    spec, _, problems = examine(text.encode(), "some/mixtral.yaml")
    assert spec is None
    error = next(problem for problem in problems if problem.name_of_field == field)
    assert reason in error.reason
    both = zip(GOOD.splitlines(), text.splitlines(), strict=True)
    assert error.line == next(n for n, (was, now) in enumerate(both, 1) if was != now)
    assert str(error).startswith(f"some/mixtral.yaml:{error.line}: {field}: ")


@pytest.mark.parametrize(
    ("left_out", "field", "reason", "parent"),
    [
        ("license: Apache-2.0\n", "license", "is missing", "name: mixtral"),
        ("  layers: 32\n", "architecture.layers", "is missing", "architecture:"),
        ("    quantizations: [Int4]\n", "weights[1].quantizations", "is missing", "- format: gptq"),
        (
            "  experts_per_token: 2\n",
            "architecture.experts_per_token",
            "must be stated",
            "architecture:",
        ),
        (
            "        file_template: mixtral-8x7b-v0.1.{quantization}.gguf\n",
            "weights[2].sources[0].file_template",
            "must name its file",
            "- hub: huggingface\n        id: TheBloke/Mixtral-8x7B-v0.1-GGUF\n",
        ),
    ],
)
def test_what_is_missing_is_named(left_out: str, field: str, reason: str, parent: str) -> None:
    """A field that is not there is reported at the line of the mapping that should hold it."""
    text = GOOD.replace(left_out, "", 1)
    with pytest.raises(InvalidSpec, match=reason) as caught:
        parse_spec(text.encode(), "x.yaml")
    assert caught.value.name_of_field == field
    assert caught.value.line == line_of(parent, text)


def test_a_nested_fault_has_its_own_line() -> None:
    """The line is that of the wrong value, deep within lists and mappings."""
    text = GOOD.replace("      Q8_0: 49_620_000_000", "      Q8_0: lots")
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(text.encode(), "x.yaml")
    assert caught.value.line == line_of("Q8_0: lots", text)
    assert caught.value.name_of_field == "weights[2].size_bytes.Q8_0"


def test_one_format_may_have_several_sets_of_weights() -> None:
    """Sets of weights of one format and size stand side by side if their quantizations differ."""
    text = GOOD.replace("format: gptq", "format: pytorch")
    assert len(parse_spec(text.encode(), "x.yaml").select(format="pytorch")) == 4


def test_one_variant_cannot_be_described_twice() -> None:
    """The same format, size and quantization in two sets of weights is refused, in any case."""
    text = GOOD.replace("format: gptq", "format: pytorch").replace("[Int4]", "[None]")
    with pytest.raises(InvalidSpec, match=r"already in weights\[0\]") as caught:
        parse_spec(text.encode(), "x.yaml")
    assert caught.value.name_of_field == "weights[1].quantizations[0]"


def test_all_faults_are_found_at_once_in_the_order_of_lines() -> None:
    """Nobody has to mend a file one error at a time."""
    text = GOOD.replace("layers: 32", "layers: x").replace("license:", "licence:")
    _, _, problems = examine(text.encode(), "x.yaml")
    lines = [problem.line for problem in problems]
    assert len(problems) == 3
    assert lines == sorted(lines)


def test_a_file_full_of_faults_is_cut_short() -> None:
    """Of very many faults the first twenty are explained and the rest counted."""
    text = GOOD + "".join(f"field{number}: x\n" for number in range(50))
    _, _, problems = examine(text.encode(), "x.yaml")
    assert len(problems) == 21
    assert problems[-1].reason == "and 30 more, from here on"
    assert problems[-1].line == line_of("field20:", text)


def test_braces_in_a_value_do_not_disturb_the_message() -> None:
    """A value is quoted as it is, even where it looks like a placeholder of ours."""
    text = GOOD.replace("name: mixtral-v0.1", "name: '{reason} {0}'")
    with pytest.raises(InvalidSpec, match=r"'\{reason\} \{0\}' is not a name"):
        parse_spec(text.encode(), "x.yaml")


def test_white_space_in_templates_is_kept() -> None:
    """Chat templates and stop strings reach the engine byte for byte."""
    text = GOOD + 'stop: ["\\n", " User:"]\nchat_template: " {{ x }}\\n"\n'
    spec = parse_spec(text.encode(), "x.yaml")
    assert spec.stop == ("\n", " User:")
    assert spec.chat_template == " {{ x }}\n"


def test_files_that_cannot_be_read_are_invalid_specs(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe and a huge file are refused without waiting."""
    pipe, folder, huge = tmp_path / "pipe.yaml", tmp_path / "folder.yaml", tmp_path / "huge.yaml"
    os.mkfifo(pipe)
    folder.mkdir()
    huge.write_bytes(b"#" * (MAX_BYTES + 1))
    reasons = {
        tmp_path / "none.yaml": "cannot be read: No such file",
        pipe: "not a regular file",
        folder: "(cannot be read: Is a directory|not a regular file)",
        huge: "at most 1048576 are read",
    }
    for path, reason in reasons.items():
        with pytest.raises(InvalidSpec, match=reason) as caught:
            read_spec(path)
        assert caught.value.path == str(path)


def test_a_message_is_one_short_line_whatever_the_file_holds() -> None:
    """A key that swallowed other lines, or a value that fills a page, is quoted in part."""
    text = GOOD.replace("license: Apache-2.0", f"? |\n  {'k' * 500}\n  more\n: 1\nlicense: x")
    text = text.replace("name: mixtral-v0.1", f"name: {'/' * 90}").replace(
        "layers: 32", f"layers: {'x' * 9000}"
    )
    _, _, problems = examine(text.encode(), "x.yaml")
    assert len(problems) == 3
    for problem in problems:
        assert len(str(problem).splitlines()) == 1
        assert len(str(problem)) < 500
