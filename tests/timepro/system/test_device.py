"""What the driver says of the cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.system import device


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, (79.6, 15.7)), ("1", (15.7,)), ("1,0", (15.7, 79.6)), ("GPU-uuid", ()), ("", ())]
)
def test_the_drivers_listing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None, expected: tuple[float, ...]
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 81559\necho 16076\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    device.gpu_memory_gib.cache_clear()
    try:
        assert device.gpu_memory_gib() == pytest.approx(expected, abs=0.06)
    finally:
        device.gpu_memory_gib.cache_clear()
