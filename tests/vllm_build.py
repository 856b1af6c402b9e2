"""Whether vLLM's CUDA build is at hand; imports no vLLM, which takes seconds and may end the process."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def missing() -> str:
    """Why the parts with a worker cannot run; empty where they can."""
    try:
        found = version("vllm")
    except PackageNotFoundError:
        return "vLLM is not installed (make setup PLATFORM=gpu installs its CUDA build)"
    return f"vLLM {found} is the CPU build; make setup PLATFORM=gpu installs the CUDA one" if "cpu" in found else ""
