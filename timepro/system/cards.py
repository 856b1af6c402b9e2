"""What this machine's NVIDIA cards are doing, by NVML, the driver's own library (package `nvidia-ml-py`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from timepro.system.device import on_gpu


@dataclass(frozen=True)
class CardReport:
    """One card at one moment.

    Args:
        busy: share of the last sample period (up to a second) in which a kernel ran, 0 to 1.
        memory_gib, total_gib: in use by all processes, and all of it.
    """

    index: int
    name: str
    busy: float
    memory_gib: float
    total_gib: float


class Cards:
    """The visible cards of this machine; none on a CPU, or where NVML does not answer.

    Attributes:
        problem: why nothing is known of the cards that are there; empty while all is well.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._nvml: Any = None
        if not on_gpu():
            return
        try:
            import pynvml

            pynvml.nvmlInit()
        except ImportError:
            self.problem = "nvidia-ml-py is not installed"
        except Exception as error:  # noqa: BLE001 - NVMLError, which only the import could name
            self.problem = f"NVML: {error}"
        else:
            self._nvml = pynvml

    def look(self) -> list[CardReport]:
        """What the cards are doing now. A card that cannot be asked is left out, and `problem` says why."""
        if self._nvml is None:
            return []
        found, self.problem = [], ""
        for handle in self._handles():
            try:
                found.append(self._report(handle))
            except self._nvml.NVMLError as error:
                self.problem = f"NVML: {error}"
        return found

    def _handles(self) -> list[Any]:
        nvml, visible = self._nvml, os.environ.get("CUDA_VISIBLE_DEVICES")
        try:
            if visible is None:
                return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            names = [part.strip() for part in visible.split(",") if part.strip()]
            return [
                nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
                for name in names
            ]
        except nvml.NVMLError as error:
            self.problem = f"NVML: {error} (CUDA_VISIBLE_DEVICES={visible})"
            return []

    def _report(self, handle: Any) -> CardReport:
        nvml = self._nvml
        name, memory = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
        return CardReport(
            index=nvml.nvmlDeviceGetIndex(handle),
            name=name.decode() if isinstance(name, bytes) else name,
            busy=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            memory_gib=memory.used / 2**30,
            total_gib=memory.total / 2**30,
        )
