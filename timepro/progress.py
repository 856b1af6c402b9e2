"""Progress of long work: a bar with rate and ETA in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 15.0


class ProgressBar:
    """Counts `total` units of work.

    Args:
        title: what is being done.
        total: number of units; 0 when unknown.
        unit: plural name of a unit; "s" where the work is waiting, and `total` how long it is likely to last.
        visible: off on all ranks but one.
    """

    def __init__(self, title: str, total: int, unit: str, visible: bool = True) -> None:
        self.title, self.total, self.unit, self.visible = title, total, unit, visible
        self.done = 0
        self.note = ""
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        console = Console(stderr=True)
        if self.visible and console.is_terminal:
            self._bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(self.title, total=self.total or None, rate="", note="")
            self._bar.start()
        return self

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count finished units; `note` replaces the text behind the bar."""
        self.done += count
        if note is not None:
            self.note = note
        if self._bar is not None:
            self._bar.update(self._task, advance=count, rate=self._rate(), note=self.note)
        elif self.visible and time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._print_line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.visible and kind is None:
            self._print_line()

    def _rate(self) -> str:
        if self.unit == "s":  # seconds a second say nothing
            return ""
        return f"{self.done / max(time.monotonic() - self._started, 1e-9):.1f} {self.unit}/s"

    def _print_line(self) -> None:
        elapsed = time.monotonic() - self._started
        done = f"{self.done}/{self.total}" if self.total else f"{self.done}"
        counted = f"{done} {self.unit}, {self._rate()}, " if self.unit != "s" else ""
        parts = [f"  {self.title}: {counted}{clock(elapsed)} elapsed"]
        if self.total and 0 < self.done < self.total:
            parts.append(f"ETA {clock(elapsed / self.done * (self.total - self.done))}")
        if self.note:
            parts.append(self.note)
        print(", ".join(parts), file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
