"""Where this machine computes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}


def environment_for_tensors() -> dict[str, str]:
    """This process's environment, for one that holds large tensors in main memory.

    In it torch asks for pages of 2 MiB where the kernel gives them on request (`madvise`, most distributions' default).
    From 32 MiB on every tensor is fresh memory to glibc, where a fault for every 4 KiB costs several times the copy.
    The environment may say otherwise.
    """
    return HUGE_PAGES | os.environ


@functools.cache
def on_gpu() -> bool:
    """Whether an NVIDIA GPU serves this process; `TIMEPRO_DEVICE=cpu` says no.

    Asks the driver and not torch: the launcher must not open a CUDA context beside its workers.
    """
    if os.environ.get("TIMEPRO_DEVICE", "").lower() == "cpu" or shutil.which("nvidia-smi") is None:
        return False
    return n_gpus() > 0


@functools.cache
def gpu_memory_gib() -> tuple[float, ...]:
    """Memory of each visible GPU, in the driver's order; empty where the driver does not say."""
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    lines = done.stdout.split() if done.returncode == 0 else []
    sizes = [float(line) / 1024 for line in lines if line.replace(".", "", 1).isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or len(sizes) != len(lines):
        return tuple(sizes) if len(sizes) == len(lines) else ()
    chosen = [part.strip() for part in visible.split(",") if part.strip()]
    if all(part.isdigit() and int(part) < len(sizes) for part in chosen):
        return tuple(sizes[int(part)] for part in chosen)
    return tuple(sizes[: len(chosen)]) if len(set(sizes)) == 1 else ()  # named by UUID: only equal cards are known


@functools.cache
def n_gpus() -> int:
    """GPUs that the driver lists, less what `CUDA_VISIBLE_DEVICES` hides."""
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    present = sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, len([part for part in visible.split(",") if part.strip()]))


@functools.cache
def gpu_names() -> tuple[str, ...]:
    """Names of the visible GPUs; empty on a CPU."""
    if not on_gpu():
        return ()
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    return tuple(names[: n_gpus()])
