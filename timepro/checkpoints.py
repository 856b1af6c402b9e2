"""Weight files rewritten as streams: a tensor changes, a file is copied, and memory holds one chunk.

The safetensors library reads lazily but writes from memory, and a shard of a published 7B checkpoint is 5 GB. Its
format is small enough to be copied byte for byte: a length (8 bytes, little-endian), a JSON header with every tensor's
dtype, shape and byte range, and the bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

INDEX_FILE = "model.safetensors.index.json"
_CHUNK = 16 << 20
_MAX_HEADER = 100 << 20  # the library's own limit
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: its file and byte range there."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> Tensor:
        """All of it, in memory of its own: a file that is mapped into memory would count as this process's."""
        flat = torch.empty(self.end - self.start, dtype=torch.uint8)
        with self.path.open("rb") as file:
            file.seek(self.start)
            if file.readinto(flat.numpy().data) != len(flat):
                raise ValueError(f"{self.path} was cut off while it was read; fetch the file again")
        return flat.view(_dtype(self)).view(self.shape)

    def rows(self, indices: Iterable[int]) -> Tensor:
        """Some rows of a matrix, (n, width), read one by one."""
        size = (self.end - self.start) // self.shape[0]
        with self.path.open("rb") as file:
            parts = []
            for index in indices:
                file.seek(self.start + index * size)
                parts.append(file.read(size))
        flat = torch.frombuffer(bytearray(b"".join(parts)), dtype=DTYPES[self.dtype])
        return flat.view(len(parts), *self.shape[1:])


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a weight file, in the order of their bytes, and its metadata.

    Raises:
        ValueError: not a safetensors file, or one that is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise ValueError(f"{path} is not a safetensors file, or it is cut off ({size} bytes); fetch it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} has a damaged header ({error}); fetch the file again") from None
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        if end > size:
            raise ValueError(f"{path} is cut off: tensor {name} ends at byte {end} of {size}; fetch the file again")
        tensors[name] = StoredTensor(name, path, entry["dtype"], tuple(entry["shape"]), start, end)
    return tensors, metadata


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, as its index lists them.

    Raises:
        ValueError: none, or a listed file that is missing.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        paths = [
            folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        ]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ValueError(f"{folder}: {', '.join(missing)} missing, which {INDEX_FILE} lists; fetch the rest")
        return paths
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        other = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"))]
        hint = f" ({', '.join(sorted(other)[:3])} are pickled files, which are not read)" if other else ""
        raise ValueError(f"{folder} holds no *.safetensors files{hint}; give a checkpoint in safetensors format")
    return paths


class Change:
    """A tensor's new shape and bytes, given chunk by chunk."""

    def __init__(self, shape: tuple[int, ...], chunks: Callable[[], Iterator[bytes]]) -> None:
        self.shape, self.chunks = shape, chunks


def with_rows(tensor: StoredTensor, n_rows: int, rows: Mapping[int, Tensor]) -> Change:
    """A matrix with another number of rows, some of them new; rows that are neither old nor new are zero."""
    width = (tensor.end - tensor.start) // tensor.shape[0]
    dtype = DTYPES[tensor.dtype]

    def chunks() -> Iterator[bytes]:
        with tensor.path.open("rb") as file:
            per_chunk = max(1, _CHUNK // width)
            for first in range(0, n_rows, per_chunk):
                last = min(first + per_chunk, n_rows)
                file.seek(tensor.start + first * width)
                old = file.read(max(0, min(last, tensor.shape[0]) - first) * width)
                block = np.frombuffer(old.ljust((last - first) * width, b"\0"), dtype=np.uint8).copy()
                for row in range(first, last):
                    if row in rows:
                        value = rows[row].to(dtype).contiguous().view(torch.uint8).numpy()
                        block[(row - first) * width : (row - first + 1) * width] = value
                yield block.tobytes()

    return Change((n_rows, *tensor.shape[1:]), chunks)


def rewrite(source: Path, target: Path, changes: Mapping[str, Change], names: Mapping[str, str | None]) -> int:
    """Copy a weight file with some tensors changed, renamed or left out.

    Args:
        changes: by the tensor's old name.
        names: old name to new name; None leaves the tensor out; a name that is not listed stays.

    Returns:
        bytes of tensors written (0: nothing was left, and no file was written).
    """
    tensors, metadata = read_header(source)
    kept = [t for t in tensors.values() if names.get(t.name, t.name) is not None]
    if not kept:
        return 0
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for tensor in kept:
        shape = changes[tensor.name].shape if tensor.name in changes else tensor.shape
        size = int(np.prod(shape, dtype=np.int64)) * torch.tensor([], dtype=_dtype(tensor)).element_size()
        entry = {"dtype": tensor.dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        header[str(names.get(tensor.name, tensor.name))] = entry
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # tensors start at a multiple of 8, as the library writes them
    with target.open("wb") as out, source.open("rb") as file:
        out.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in kept:
            if tensor.name in changes:
                for chunk in changes[tensor.name].chunks():
                    out.write(chunk)
            else:
                _copy(file, out, tensor)
        out.flush()
        os.fsync(out.fileno())
        written = out.tell() - 8 - len(raw)
    assert written == offset, f"{target}: wrote {written} bytes of tensors, the header says {offset}"
    return offset


def _dtype(tensor: StoredTensor) -> torch.dtype:
    known = DTYPES | {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
    if tensor.dtype not in known:
        raise ValueError(f"{tensor.path}: tensor {tensor.name} is of type {tensor.dtype}, which is not supported")
    return known[tensor.dtype]


def _copy(file: BinaryIO, out: BinaryIO, tensor: StoredTensor) -> None:
    file.seek(tensor.start)
    left = tensor.end - tensor.start
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise ValueError(f"{tensor.path} was cut off while it was read; fetch the file again")
        out.write(chunk)
        left -= len(chunk)


def copy_others(source: Path, target: Path, but: Iterable[str] = ()) -> None:
    """Copy the small files of a checkpoint folder: all but weights, their index, and those named."""
    left_out = {INDEX_FILE, *but}
    for path in sorted(source.iterdir()):
        weights = path.suffix in (".safetensors", ".bin", ".pt", ".pth")
        if path.is_file() and not weights and path.name not in left_out:
            shutil.copy2(path, target / path.name)
