"""A run's folder: made, moved aside, resumed, and bound to the checkpoint that the run starts from."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timepro.config import by_key, load_resolved, save_resolved
from timepro.results.code import code_digest, this_machine, with_code
from timepro.run_lock import owner_of, run_lock
from timepro.runs import IDENTITY, read_identity
from timepro.sweeps import PLACES
from timepro.system.files import write_json
from trainer.launcher.console import console
from trainer.settings.experiment import ExperimentConfig


@contextmanager
def opened_run(config: ExperimentConfig, resume: bool) -> Iterator[Path]:
    """The run's folder as `open_run` makes it, which is nobody else's until the end.

    Raises:
        ValueError: nothing to resume, or another process trains in the folder.
    """
    folder = Path(config.runs) / config.name
    if owner := owner_of(folder):
        raise ValueError(f"{folder} is in use by process {owner}; end it, or give this run another name=NAME")
    run = open_run(config, resume)
    with run_lock(run):
        yield run


def open_run(config: ExperimentConfig, resume: bool) -> Path:
    """The run's folder with its resolved configuration; an earlier run of the name moves aside.

    A resumed run takes the configuration given now; what differs from before is said.

    Raises:
        ValueError: nothing to resume.
    """
    run = Path(config.runs) / config.name
    if resume:
        if not (run / IDENTITY).is_file():
            raise ValueError(f"there is nothing to resume in {run}; start without --resume")
        before = load_resolved(run / "config.yaml", ExperimentConfig)
        for key, old, new in changes(by_key(before), by_key(config)):
            console.print(f"[bold]run[/]  resumed with {key}={new} (was {old})")
        save_resolved(config, run / "config.yaml")
        identity = read_identity(run)
        _write(run, identity | {"code": with_code(identity.get("code", ""), code_digest(by_key(config)))})
        return run
    if (run / "eval").exists() or (run / "checkpoints").exists():
        moved = run.with_name(f"{run.name}.{time.strftime('%Y%m%d-%H%M%S', time.localtime(run.stat().st_mtime))}")
        run.rename(moved)
        console.print(f"[bold]run[/]  an earlier run is now {moved}")
    elif run.exists():
        shutil.rmtree(run)  # it ended before it had any result
    run.mkdir(parents=True)
    save_resolved(config, run / "config.yaml")
    home = os.path.realpath(run)  # what its files say of paths is relative to it
    made_by = {"commit": _commit(), "code": code_digest(by_key(config)), "machine": this_machine()}
    _write(run, {"wandb_id": secrets.token_hex(4), "home": home, "started": _now(), **made_by})
    return run


def link_records(run: Path, work: Path) -> None:
    """Put what a job elsewhere has recorded offline where `wandb sync` and TensorBoard look for the run's: as links.

    Args:
        work: the job's folder; a stage that several runs share has one. A second upload of it is left out by W&B.
    """
    for source in (*work.glob("wandb/offline-run-*"), *work.glob("tensorboard/*")):
        link = run / source.relative_to(work)
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(os.path.relpath(source.resolve(), link.parent.resolve()), target_is_directory=True)


def is_finished(folder: Path) -> bool:
    """A run's summary is the last thing it writes."""
    return (folder / "summary.json").is_file()


def is_finished_with(folder: Path, config: ExperimentConfig) -> bool:
    """Whether a trial is finished.

    Raises:
        ValueError: it is, but with other settings: its result must not stand for this configuration.
    """
    if not is_finished(folder):
        return False
    saved = folder / "config.yaml"
    try:
        before = load_resolved(saved, ExperimentConfig)
    except ValueError as error:
        raise ValueError(f"{error}; {folder} was finished by another version: move it away") from None
    differ = changes(by_key(before), by_key(config))
    other = sorted(f"{key}={old} (now {new})" for key, old, new in differ if key.split(".")[0] not in PLACES)
    if other:
        raise ValueError(
            f"{folder} is finished with other settings, {', '.join(other[:5])}: move it away, or give the sweep "
            "another name"
        )
    return True


def bind_start(run: Path, start_key: str) -> None:
    """Note which checkpoint the run starts from.

    Raises:
        ValueError: a resumed run that had started from another one.
    """
    identity = read_identity(run)
    if identity.setdefault("start", start_key) != start_key:
        raise ValueError(
            f"{run} was started from another fine-tuned checkpoint ({identity['start']}, now {start_key}), which is no "
            "longer kept, and settings, data or code of the stages before have changed; start anew under another name"
        )
    _write(run, identity)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z")


def _commit() -> str:
    """The code's commit, with "+" where files were changed since; empty outside of a checkout."""
    here = Path(__file__)
    tracked = ["ls-files", "--error-unmatch", here.name]  # an installed copy may lie inside somebody else's checkout
    try:
        for asked in (tracked, ["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]):
            command = ["git", "-C", str(here.parent), *asked]
            said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.strip()


def changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, as (dotted key, old value, new value)."""
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changes(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key, old, new


def _write(run: Path, identity: Mapping[str, Any]) -> None:
    write_json(run / IDENTITY, identity)
