"""Weight files rewritten as streams: the bytes are right, and memory holds a chunk."""

from __future__ import annotations

import tracemalloc

import torch
from safetensors.torch import load_file, save_file

from timepro.checkpoints import read_header, rewrite, with_rows


def test_rows_are_added_and_tensors_renamed_or_left_out(tmp_path):
    old = {"a": torch.arange(12.0).view(4, 3), "b": torch.ones(5, dtype=torch.int64), "c": torch.zeros(2)}
    save_file(old, tmp_path / "old.safetensors", metadata={"format": "pt"})
    tensors, metadata = read_header(tmp_path / "old.safetensors")
    assert metadata == {"format": "pt"}
    change = with_rows(tensors["a"], 6, {1: torch.full((3,), 7.0), 4: torch.full((3,), 8.0)})
    rewrite(tmp_path / "old.safetensors", tmp_path / "new.safetensors", {"a": change}, {"b": "bb", "c": None})
    new = load_file(tmp_path / "new.safetensors")
    assert set(new) == {"a", "bb"}
    assert new["a"].tolist() == [[0, 1, 2], [7, 7, 7], [6, 7, 8], [9, 10, 11], [8, 8, 8], [0, 0, 0]]
    assert torch.equal(new["bb"], old["b"])


def test_memory_does_not_grow_with_the_file(tmp_path):
    size = 192 << 20
    save_file({"w": torch.zeros(size // 1024, 256), "x": torch.zeros(size // 4)}, tmp_path / "old.safetensors")
    tensors, _ = read_header(tmp_path / "old.safetensors")
    tracemalloc.start()
    try:
        change = with_rows(tensors["w"], size // 1024 + 64, {size // 1024: torch.ones(256)})
        written = rewrite(tmp_path / "old.safetensors", tmp_path / "new.safetensors", {"w": change}, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written == 2 * size + 64 * 1024
    assert peak < 100 << 20  # a few chunks of 16 MiB; one of the tensors alone has 192
