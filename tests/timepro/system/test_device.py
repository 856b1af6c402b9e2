"""What the driver says of the cards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timepro.system import device

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ALLOCATE = """
import re, torch
kept = torch.zeros(64 << 20, dtype=torch.uint8)
print(re.search("AnonHugePages: *([0-9]+)", open("/proc/self/smaps_rollup").read()).group(1))
"""


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


@pytest.mark.skipif(
    not _SETTING.is_file() or "[madvise]" not in _SETTING.read_text(),
    reason="the kernel does not give huge pages on request",
)
@pytest.mark.parametrize("said", ["", "0"])
def test_a_large_tensor_lies_in_huge_pages_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    for name in device.HUGE_PAGES:
        monkeypatch.delenv(name, raising=False)
        if said:
            monkeypatch.setenv(name, said)
    command = [sys.executable, "-c", _ALLOCATE]
    huge_kib = int(subprocess.check_output(command, env=device.environment_for_tensors(), timeout=120))
    assert huge_kib < 8 << 10 if said else huge_kib > 32 << 10
