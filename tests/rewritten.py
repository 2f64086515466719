"""A GGUF file with other metadata, as a converter of another day would have written it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf

TEMPLATE = "tokenizer.chat_template"
CONTROL = 3


def rewrite(
    source: Path,
    target: Path,
    metadata: Mapping[str, str | int | None],
    tokens: Mapping[int, str] | None = None,
) -> Path:
    """Writes the source with other metadata; `None` removes an entry. Returns the target.

    `tokens` are control tokens, by their number.
    """
    reader = gguf.GGUFReader(source)
    kind = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, kind)
    left = dict(metadata)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = left.pop(field.name, field.contents())
        if value is None:
            continue
        for number, text in (tokens or {}).items():
            if field.name == "tokenizer.ggml.tokens":
                value[number] = text
            if field.name == "tokenizer.ggml.token_type":
                value[number] = CONTROL
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    for name, value in left.items():
        if value is not None:
            is_text = isinstance(value, str)
            kind_of = gguf.GGUFValueType.STRING if is_text else gguf.GGUFValueType.UINT32
            writer.add_key_value(name, value, kind_of)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def with_sentencepiece(source: Path, target: Path) -> Path:
    """Writes the source with a SentencePiece vocabulary as Mixtral's; returns the target.

    Bytes, and the pieces of Mistral's prompt that can be mistaken for each other.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "tokenizer.", "general.architecture")):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    count = len(reader.fields["tokenizer.ggml.tokens"].contents())
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    words += ["▁", "▁▁", "▁[", "[", "]", "/", "▁U", "▁A", "U", "A", "1", "2"]
    words += [f"unused{number}" for number in range(len(words), count)]
    kinds += [gguf.TokenType.NORMAL] * (count - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_scores([float(-number) for number in range(count)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
