"""Metrics of a run: to W&B (offline unless logged in), a JSON-lines file and, where asked for, TensorBoard's files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from timepro.config import by_key
from timepro.system.files import replacing
from trainer.learner import distributed
from trainer.learner.event_files import EventFiles
from trainer.learner.place import PlaceWriter
from trainer.messages import JobSpec
from trainer.settings.experiment import ExperimentConfig
from trainer.settings.wandb import WandbConfig, wandb_mode

_BEST = {"reward": "max", "eval/validation/*": "max", "loss": "min", "eval/validation/loss": "min"}


class Tracker(Protocol):
    """Records the metrics of one job of a run."""

    @property
    def records_tables(self) -> bool: ...
    @property
    def is_new(self) -> bool: ...

    def at(self, step: int, of: int, phase: str) -> None: ...
    def resume_from(self, step: int, elapsed: float) -> None: ...
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def chart(self, step: int, values: Mapping[str, float]) -> None: ...
    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def summary(self, values: Mapping[str, float]) -> None: ...
    def finish(self, exit_code: int = 0) -> None: ...


class SilentTracker:
    """Records nothing: every rank but the first has this one."""

    records_tables = is_new = False

    def at(self, step: int, of: int, phase: str) -> None:
        """Rank 0 says where the job is."""

    def resume_from(self, step: int, elapsed: float) -> None:
        """Nothing to go back to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Rank 0 logs."""

    def chart(self, step: int, values: Mapping[str, float]) -> None:
        """Rank 0 shows."""

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rank 0 records tables."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Rank 0 sums up."""

    def finish(self, exit_code: int = 0) -> None:
        """Nothing to close."""


class RunTracker:
    """Logs to W&B and to a file; of rank 0.

    Args:
        folder: the run's folder.
        job: "sft" or "grpo", W&B's job type.
        run_id: kept over a resume, so that curves continue.
    """

    def __init__(
        self, config: WandbConfig, folder: Path, name: str, job: str, resolved: Mapping[str, Any], run_id: str
    ) -> None:
        import wandb

        self._path = folder / f"metrics.{job}.jsonl"
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        self._started = time.monotonic()
        self._place = PlaceWriter(folder, job)
        self._events_folder = folder / "tensorboard" / job if config.tensorboard else None
        self._events: EventFiles | None = None  # from `resume_from` on, which says from where
        # Sounds and pictures in tables wait here for an upload; elsewhere than in the run's folder they would get lost.
        os.environ.setdefault("WANDB_DATA_DIR", str((folder / "wandb" / "data").absolute()))
        # An agent of W&B has its own number for a trial. It is that of RL; the SFT before it is a run of its own.
        agent = "WANDB_SWEEP_ID" in os.environ
        if agent and job != "grpo":
            for variable in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
                os.environ.pop(variable, None)
        taken = agent and job == "grpo"
        if not taken:
            _set_aside(folder / "wandb", run_id)
        self._run = wandb.init(
            project=config.project,
            name=f"{name}-{job}",
            id=None if taken else run_id,
            resume=None if taken else "allow",
            group=config.group or name,
            job_type=job,
            tags=[tag.strip() for tag in config.tags.split(",") if tag.strip()],
            dir=str(folder),
            config=dict(resolved),
            mode=wandb_mode(config),
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=False),
        )
        for metric, best in _BEST.items():
            self._run.define_metric(metric, summary=f"{best},last")

    @property
    def is_new(self) -> bool:
        """Whether W&B has nothing of the run but what comes now: so it is offline, also when the job is resumed."""
        return self._run.starting_step == 0

    def at(self, step: int, of: int, phase: str) -> None:
        """Say where the job is, for `timepro status`; costs nothing.

        Args:
            of: all steps of the job; 0 where time bounds it.
        """
        self._place.at(step, of, phase)

    def resume_from(self, step: int, elapsed: float) -> None:
        """Drop what was recorded after the checkpoint that a resumed job goes on from: it is about to come again.

        What was recorded up to it is told to W&B again where the run is new there, so that one run has all of it.

        Args:
            step: the checkpoint's step.
            elapsed: seconds of training up to it; the clock goes on from there.
        """
        self._file.close()
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        with replacing(self._path) as out:
            # A crash can cut the last line off; it lies after the checkpoint in any case.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            out.writelines(kept)
        self._file = self._path.open("a", buffering=1, encoding="utf-8")
        self._started = time.monotonic() - elapsed
        if self._events_folder is not None:
            self._events = EventFiles(self._events_folder, step)
        if self.is_new:
            began = time.time() - elapsed
            for line in kept:
                row = json.loads(line)
                at = row.pop("step")
                self._run.log(row | {"_timestamp": began + row["elapsed_s"]}, step=at)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        row = {"elapsed_s": round(time.monotonic() - self._started, 3), **metrics}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._show(step, row)

    def chart(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers over steps that are kept elsewhere: in W&B and TensorBoard, but not in the file."""
        self._show(step, values)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)
        if self._events is not None:
            self._events.log(step, values)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table, in W&B alone: cells may be sounds and pictures."""
        import wandb

        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step)

    @property
    def records_tables(self) -> bool:
        """Whether making a table is worth the while."""
        return not self._run.disabled

    def summary(self, values: Mapping[str, float]) -> None:
        """Set summary values, the ones that a comparison table shows."""
        self._run.summary.update(dict(values))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run's files."""
        if self._events is not None:
            self._events.close()
        self._run.finish(exit_code=exit_code)
        self._file.close()
        self._place.close()


def _set_aside(folder: Path, run_id: str) -> None:
    """Move the offline parts of a run that is resumed out of the way of `wandb sync`: a new one will hold all of it.

    Uploaded one after the other, parts with the same id would replace one another.
    """
    earlier = folder / "earlier"
    for part in sorted(folder.glob(f"offline-run-*-{run_id}")):
        earlier.mkdir(exist_ok=True)
        number = sum(1 for _ in earlier.iterdir())  # names tell seconds alone, and two starts may share one
        part.rename(earlier / f"{number}.{part.name}")


def tracker_of(job: JobSpec, config: ExperimentConfig) -> Tracker:
    """The job's tracker: rank 0 records, the others are silent."""
    if not distributed.is_first():
        return SilentTracker()
    return RunTracker(config.wandb, Path(job.work), config.name, job.kind, by_key(config), job.run_id)
