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
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return listing.returncode == 0 and "GPU 0" in listing.stdout
