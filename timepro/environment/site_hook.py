"""Runs at every interpreter start of a repaired environment; see `cpu_wheels.py`, which copies this file.

The copy lives in site-packages as `_timepro_cpu_wheels.py`, and a `.pth` file calls `install`, so spawned processes
(vLLM's engine and workers, torchrun's ranks) get it as well. It must therefore stand alone, cost nothing at start and
never import torch there.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # type checkers take it for True; importing the real one would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

SITE = os.path.dirname(os.path.abspath(__file__))

# torchvision registers fake kernels for these two when imported and fails if nothing has declared them.
TORCHVISION_SCHEMAS = tuple(
    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
)
_libraries: list[Any] = []  # a torch Library takes its schemas with it when it is collected


def install(packages: Sequence[str], site: str = SITE) -> None:
    """Make `packages` (names among torchcodec, torchvision) behave beside a CPU build of torch in folder `site`.

    Does nothing if torch has since become a CUDA build, so a stale hook cannot hide a working package.
    """
    if os.path.exists(os.path.join(site, "torch", "lib", "libc10_cuda.so")):
        return
    if "torchcodec" in packages:
        # None is Python's own mark for "not importable": `import` raises ImportError and `find_spec` says absent,
        # which is what vLLM and transformers handle. The broken package itself raises OSError, which they do not.
        sys.modules.setdefault("torchcodec", None)  # type: ignore[arg-type]
    if "torchvision" in packages and not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())


class TorchvisionFinder:
    """Finds torchvision as usual, and declares its missing operators just before its first line runs."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Return torchvision's ordinary spec with a wrapped loader, None for every other module."""
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def declare_then_execute(module: ModuleType) -> None:
                declare_operators(os.path.dirname(spec.origin or ""))
                execute(module)

            spec.loader.exec_module = declare_then_execute  # type: ignore[method-assign]
        return spec


def declare_operators(folder: str) -> None:
    """Declare `nms` and `qnms` unless torchvision's own library in `folder` loads and brings them."""
    import torch

    try:
        torch.ops.load_library(os.path.join(folder, "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in TORCHVISION_SCHEMAS:
            library.define(schema)
        _libraries.append(library)
