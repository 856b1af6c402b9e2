"""What launcher and learner say to each other: a job and its result as JSON, a rank's place in its environment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timepro.system.files import write_json

RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"  # the folder of resumable checkpoints in a run's or stage's own

# A rank's environment: who it is, where the ranks meet, and the address that it listens on.
RANK, WORLD_SIZE, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
STORE_HOST, STORE_PORT, STORE_PREFIX = "TIMEPRO_STORE_HOST", "TIMEPRO_STORE_PORT", "TIMEPRO_STORE_PREFIX"
ADDRESS = "TIMEPRO_ADDRESS"


@dataclass
class JobSpec:
    """One job of the learner's ranks.

    Args:
        kind: "sft" or "grpo".
        config: the resolved experiment.
        checkpoint: folder to start from.
        adapter: folder of the adapter to go on with, which belongs to the checkpoint; empty: a fresh one.
        manifest: training samples.
        validation, test: manifests to evaluate on.
        output: where the trained checkpoint folder goes.
        work: folder of resumable checkpoints, metrics and the result.
        workers: addresses of the rollout workers (GRPO).
        max_seconds: bound in time for SFT; 0: by steps.
        title: names the progress bar.
        run_id: W&B's.
    """

    kind: str
    config: str
    checkpoint: str
    manifest: str
    validation: str
    output: str
    work: str
    title: str
    run_id: str
    adapter: str = ""
    test: str = ""
    workers: list[str] = field(default_factory=list)
    max_seconds: float = 0.0
    resume: bool = False

    def save(self, path: Path) -> None:
        write_json(path, asdict(self), indent=1)

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def write_result(work: Path, result: dict[str, Any]) -> None:
    """Rank 0's report; the launcher reads it once all ranks have ended well."""
    write_json(work / RESULT_FILE, result)


def read_result(work: Path) -> dict[str, Any]:
    """What `write_result` wrote.

    Raises:
        RuntimeError: the job ended without a report.
    """
    path = work / RESULT_FILE
    if not path.is_file():
        raise RuntimeError(f"the learner ended without writing {path}")
    return json.loads(path.read_text(encoding="utf-8"))
