"""DeepSpeed: `zero.*`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from timepro.config.marks import Count, Natural, Positive
from timepro.system import device

DTYPES = ("auto", "float32", "bfloat16")


@dataclass
class ZeroConfig:
    """DeepSpeed settings that depend on the machine."""

    dtype: str = "auto"  # auto: float32 on a CPU, bfloat16 on a GPU
    reduce_bucket: Count = 50_000_000
    persistence_threshold: Natural = 100_000  # smaller parameters stay whole on every rank
    offload_optimiser: bool = False  # float32 weights and AdamW's moments in main memory; AdamW then runs on the CPU
    collective_timeout_s: Positive = 1800.0
    extra: dict[str, Any] = field(default_factory=dict)  # merged into DeepSpeed's configuration, key by key

    @property
    def resolved_dtype(self) -> str:
        """float32 or bfloat16, for whoever does not load torch."""
        return self.dtype if self.dtype != "auto" else ("bfloat16" if device.on_gpu() else "float32")

    def check(self) -> None:
        """Raises ValueError for a dtype that the learner does not compute in."""
        if self.dtype not in DTYPES:
            raise ValueError(f"zero.dtype is {self.dtype!r}; it must be auto, float32 or bfloat16")
