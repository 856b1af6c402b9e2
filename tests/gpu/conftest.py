"""Tests on a card: skipped, with the reason, where there is none. What they measure goes into `run.py`'s report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
FIGURES = "TIMEPRO_GPU_FIGURES"  # the file that `run.py` wants the figures of a part in


def no_card() -> str:
    """Why there is no card to test on; empty where there is one."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"no card can be used: torch {torch.__version__} is a build without CUDA"
    return "no card can be used: torch finds no NVIDIA GPU (nvidia-smi lists those that the driver sees)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = no_card()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def note() -> Callable[[str, object], None]:
    """Keep a figure for the report under a name."""

    def keep(name: str, value: object) -> None:
        print(f"{name}: {value}", flush=True)
        if path := os.environ.get(FIGURES):
            file = Path(path)
            found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            file.write_text(json.dumps(found | {name: value}), encoding="utf-8")

    return keep
