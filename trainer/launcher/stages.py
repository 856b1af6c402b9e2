"""Stages of a run whose results are kept: each is named by the content of its inputs and skipped when it exists."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from timepro.progress import clock
from timepro.system.files import write_json
from trainer.launcher.console import console

_DONE = "stage.json"
_WAIT_S = 48 * 3600.0  # for another run that makes the same result; far more than any stage takes
_REPORT_S = 60.0


class StageLog:
    """What each stage of a run has taken, since the run's first start.

    Args:
        peak: the most memory in GiB that one node has taken since it was last asked.
        began: told the name of each stage that is run, when it begins.
        record: the file that keeps all this for a resume; None: none does.

    Attributes:
        seconds: 0 where a kept result was used; an interrupted stage's count, too.
        memory_gib: at most, of those that were run.
    """

    def __init__(
        self,
        peak: Callable[[], float] = lambda: 0.0,
        began: Callable[[str], None] = lambda name: None,
        record: Path | None = None,
    ) -> None:
        self._peak, self._began, self._record = peak, began, record
        known = json.loads(record.read_text(encoding="utf-8")) if record is not None and record.is_file() else {}
        self.seconds: dict[str, float] = known.get("seconds", {})
        self.memory_gib: dict[str, float] = known.get("memory_gib", {})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note what a stage takes that is run meanwhile; say so where it does not fail."""
        self._began(name)
        started = time.monotonic()
        try:
            yield
        except BaseException:  # an interrupted stage has taken its time, too; raised again below
            with contextlib.suppress(OSError):  # as on a full disk, of which the error at hand may tell
                self._add(name, time.monotonic() - started)
            raise
        seconds = time.monotonic() - started
        memory = self._add(name, seconds)
        console.print(
            f"[bold]{name}[/]  done in {clock(seconds)}" + (f", at most {memory:.1f} GiB of memory" if memory else "")
        )

    def kept(self, name: str) -> None:
        """Note that a stage's result was at hand; it may be an earlier start of this run that made it."""
        self.seconds.setdefault(name, 0.0)

    def _add(self, name: str, seconds: float) -> float:
        memory = self._peak()
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.memory_gib[name] = max(self.memory_gib.get(name, 0.0), memory)
        if self._record is not None:
            write_json(self._record, {"seconds": self.seconds, "memory_gib": self.memory_gib})
        return memory


def is_kept(name: str, cache: Path, key: str) -> bool:
    """Whether `cached_stage` would use a kept result."""
    return (cache / f"{name}-{key}" / _DONE).is_file()


def cached_stage(
    name: str, cache: Path, key: str, work: Callable[[Path], Mapping[str, Any]], log: StageLog, what: str
) -> tuple[Path, dict[str, Any]]:
    """Run a stage, or use its kept result. Of several runs that need the same one, the first makes it.

    Args:
        key: names what it is made of and by, see `stage_keys`.
        work: fills the folder it is given and returns facts about it; what it leaves when it fails is kept for a
            resume but never taken for a result.
        what: one line for the user.

    Returns:
        the result's folder and its facts.

    Raises:
        RuntimeError: another run has been at it for days.
    """
    folder = cache / f"{name}-{key}"
    marker = folder / _DONE
    with nullcontext() if marker.is_file() else _alone(name, folder):
        if not marker.is_file():
            return folder, _make(name, folder, marker, work, log, what)
    console.print(f"[bold]{name}[/]  kept from an earlier run ({folder})")
    log.kept(name)
    return folder, json.loads(marker.read_text(encoding="utf-8"))


def _make(
    name: str, folder: Path, marker: Path, work: Callable[[Path], Mapping[str, Any]], log: StageLog, what: str
) -> dict[str, Any]:
    console.print(f"[bold]{name}[/]  {what}")
    with log.stage(name):
        folder.mkdir(parents=True, exist_ok=True)
        facts = dict(work(folder))
        write_json(marker, facts)
    return facts


@contextmanager
def _alone(name: str, folder: Path) -> Iterator[None]:
    """Hold the stage's lock, which the system takes back from a process that ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a+", encoding="utf-8") as lock:
        began = reported = time.monotonic()
        waited = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if not waited or now - reported > _REPORT_S:
                    lock.seek(0)
                    owner = lock.read().strip() or "?"
                    console.print(f"[bold]{name}[/]  being made by process {owner}; waiting ({clock(now - began)})")
                    waited, reported = True, now
                if now - began > _WAIT_S:
                    raise RuntimeError(
                        f"{folder} has been in the making for {clock(now - began)}; end that run"
                    ) from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def take_result(kept: Path, folder: Path) -> None:
    """Copy a kept checkpoint into a run, which ends with it; its weights as links, which take no room."""

    def copy(source: str, target: str) -> None:
        Path(target).unlink(missing_ok=True)  # of a run that was interrupted here
        if source.endswith(".safetensors"):
            with contextlib.suppress(OSError):  # another file system, or one without links
                os.link(source, target)
                return
        shutil.copy2(source, target)

    shutil.copytree(kept, folder, copy_function=copy, dirs_exist_ok=True)


def require_disk(folder: Path, gib: float) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        ValueError: naming the folder, what is needed and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise ValueError(
            f"{folder} has {free:.1f} GiB free, this run needs about {gib:.1f} GiB; "
            "free some, or set runs=FOLDER elsewhere"
        )
