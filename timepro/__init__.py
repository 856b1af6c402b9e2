"""Fine-grained temporal perception for large audio-language models: events, timestamps, tasks, data, metrics.

From Python: `from timepro import Detector, load, evaluate, parse_answer, Event, dataframe`; each is imported when first
used.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
# Named by strings: an import here would make every command wait for torch, and every kept stage depend on all of this.
_FROM = {
    "Detection": "timepro.inference.detections",
    "Detector": "timepro.inference.detector",
    "Event": "timepro.events",
    "ParsedAnswer": "timepro.events",
    "Model": "timepro.inference.model",
    "dataframe": "timepro.data.frame",
    "evaluate": "timepro.api",
    "load": "timepro.inference.model",
    "parse_answer": "timepro.answers",
    "read_manifest": "timepro.data.manifest",
}
__all__ = ["__version__", *_FROM]  # noqa: PLE0604 - names, all of them


def __getattr__(name: str) -> Any:
    """What `_FROM` names, imported at its first use (PEP 562)."""
    if name not in _FROM:
        raise AttributeError(f"module 'timepro' has no attribute {name!r}; it offers {', '.join(_FROM)}")
    import importlib

    value = getattr(importlib.import_module(_FROM[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})
