"""The embedded experiment in miniature: the command and the settings that the tests of whole runs share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What every miniature has; a later setting of the same key wins.
SHARED = (
    "data.validation_clips=4",
    "sft.batch_size=8",
    "grpo.groups.group_size=4",
    "wandb.mode=disabled",
    "control.enabled=false",
)


def command(*settings: str) -> list[str]:
    """What `make train EXP=sed_grpo` runs."""
    return [sys.executable, "-m", "timepro.cli", "train", "sed_grpo", *SHARED, *settings]


def environment(folders: Sequence[Path] = (), more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The command's environment: one thread a process, the tests' rewards and these folders on PYTHONPATH."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *folders]))
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | dict(more or {})


def start(log: Path, *settings: str) -> subprocess.Popen[bytes]:
    """Start a run; what it says is appended to `log`."""
    with log.open("ab") as sink:
        return subprocess.Popen(command(*settings), cwd=ROOT, env=environment(), stdout=sink, stderr=subprocess.STDOUT)
