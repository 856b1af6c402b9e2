"""A learner job: what the launcher tells the ranks, and what rank 0 reports back, both as JSON files."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULT_FILE = "result.json"


@dataclass
class JobSpec:
    """One job of the learner's ranks.

    Args:
        kind: "sft" or "grpo".
        config: the resolved experiment.
        checkpoint: folder to start from.
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
    test: str = ""
    workers: list[str] = field(default_factory=list)
    max_seconds: float = 0.0
    resume: bool = False

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        return cls(**json.loads(path.read_text()))


def write_result(work: Path, result: dict[str, Any]) -> None:
    """Rank 0's report; the launcher reads it once all ranks have ended well."""
    partial = work / f"{RESULT_FILE}.partial"
    partial.write_text(json.dumps(result))
    os.replace(partial, work / RESULT_FILE)


def read_result(work: Path) -> dict[str, Any]:
    """What `write_result` wrote.

    Raises:
        RuntimeError: the job ended without a report.
    """
    path = work / RESULT_FILE
    if not path.is_file():
        raise RuntimeError(f"the learner ended without writing {path}")
    return json.loads(path.read_text())
