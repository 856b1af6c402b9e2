"""Where this machine computes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess


@functools.cache
def on_gpu() -> bool:
    """Whether an NVIDIA GPU serves this process; `TIMEPRO_DEVICE=cpu` says no.

    Asks the driver and not torch: the launcher must not open a CUDA context beside its workers.
    """
    if os.environ.get("TIMEPRO_DEVICE", "").lower() == "cpu" or shutil.which("nvidia-smi") is None:
        return False
    return n_gpus() > 0


@functools.cache
def n_gpus() -> int:
    """GPUs that the driver lists, less what `CUDA_VISIBLE_DEVICES` hides."""
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    present = sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, len([part for part in visible.split(",") if part.strip()]))
