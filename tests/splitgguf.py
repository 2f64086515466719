"""A GGUF file in numbered parts, as llama.cpp's own tool would split it."""

from __future__ import annotations

from pathlib import Path

import gguf


def split(source: Path, target: Path, tensors: int) -> list[Path]:
    """Writes the source's metadata and tensors, so many to a part; the parts, in order.

    `target` is the name that they share: `x.gguf` becomes `x-00001-of-00002.gguf` and so on.
    """
    reader = gguf.GGUFReader(source)
    kind = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, kind, split_max_tensors=tensors)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(target.parent.glob(f"{target.stem}-*-of-*.gguf"))
