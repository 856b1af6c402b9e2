"""A profile of some steps, on request: traces of learner ranks and workers, and a page of where the time went.

The traces are PyTorch's own, for Perfetto (ui.perfetto.dev) or TensorBoard. The page is `summary.md` beside them.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from timepro.system.files import write_text
from trainer.learner import distributed
from trainer.learner.profile_page import Measured, page
from trainer.learner.spans import span
from trainer.learner.step_metrics import PhaseClock
from trainer.learner.trace import read_trace
from trainer.settings.profile import ProfileConfig

TellWorkers = Callable[[str, dict[str, Any] | None], object]  # a route, and what is posted to it


class StepProfiler:
    """Gives each step its clock, and profiles those that were asked for. Every rank has one.

    Args:
        config: None profiles nothing.
        folder: of the profile.
        tell_workers: posts to all workers; raises RuntimeError. Rank 0 calls it.
    """

    def __init__(
        self,
        config: ProfileConfig | None = None,
        folder: Path = Path(),
        tell_workers: TellWorkers = lambda route, body: None,
    ) -> None:
        self._config, self._folder, self._tell_workers = config or ProfileConfig(), folder, tell_workers
        self._begun = 0  # steps
        self._clock: PhaseClock | None = None
        self._before, self._during = Measured(), Measured()
        self._profiler: Any = None
        self._first_step = self._cpu_s = 0.0

    def clock(self, step: int, begins: Callable[[str], None]) -> PhaseClock:
        """The clock of a step that begins now; with it ends what lay between it and the one before.

        Args:
            step: steps done.
            begins: see `PhaseClock`.
        """
        config = self._config
        if not config.steps or self._begun > config.after + config.steps:
            return PhaseClock(begins)
        self._end_step()
        if self._begun == config.after:
            self._start(step)
        elif self._begun == config.after + config.steps:
            self.finish()
        self._begun += 1
        self._clock = PhaseClock(begins)
        return self._clock

    def note(self, name: str, seconds: float) -> None:
        """Count a span that was timed elsewhere."""
        if span.listener is not None:
            self._during.add_span(name, seconds)

    def finish(self) -> None:
        """End the profile, if one is being taken, and write it."""
        self._end_step()
        if span.listener is None:
            return
        span.listener = None
        self._during.cpu_s = _cpu_seconds() - self._cpu_s
        if distributed.is_first():
            self._ask_workers("stop_profile", None)
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._trace_file()))
            self._profiler = None
        if distributed.is_first():
            self._write_page()

    def _end_step(self) -> None:
        if self._clock is None:
            return
        measured = self._before if span.listener is None else self._during
        measured.add_step(self._clock.elapsed, self._clock.seconds)
        self._clock = None

    def _start(self, step: int) -> None:
        distributed.say(f"profiling {self._config.steps} step(s) from step {step + 1} on, into {self._folder}")
        if distributed.is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._ask_workers("start_profile", {"max_iterations": self._config.engine_steps})
        if self._config.every_rank or distributed.is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        self._first_step, self._cpu_s = step + 1, _cpu_seconds()
        span.listener = self._listen

    @contextmanager
    def _listen(self, name: str) -> Iterator[None]:
        """Time a span. What a GPU still computes of it belongs to it, so it is waited for."""
        begun = time.monotonic()
        with torch.profiler.record_function(f"timepro: {name}"):
            yield
            if distributed.device().type == "cuda":
                torch.cuda.synchronize()
        self._during.add_span(name, time.monotonic() - begun)

    def _ask_workers(self, route: str, body: dict[str, Any] | None) -> None:
        try:
            self._tell_workers(route, body)
        except RuntimeError as error:  # a worker that is being started again: the run is worth more than its profile
            distributed.say(f"the profile lacks workers: {error}")

    def _trace_file(self) -> Path:
        return self._folder / f"learner-{distributed.rank()}.trace.json.gz"

    def _write_page(self) -> None:
        traces = {"learner rank 0": [self._trace_file()]}
        for folder in sorted(self._folder.glob("worker-*")):
            if files := sorted(folder.glob("*.pt.trace.json*")):
                traces[folder.name.replace("-", " ", 1)] = _newest(files)
        found = {name: [read_trace(path) for path in paths] for name, paths in traces.items()}
        steps = f"steps {self._first_step:.0f} to {self._first_step + self._during.steps - 1:.0f}"
        write_text(self._folder / "summary.md", page(steps, self._before, self._during, found))
        distributed.say(f"where the time of {steps} went: {self._folder / 'summary.md'}")


def _newest(files: Sequence[Path]) -> list[Path]:
    """Of traces that several profiles of a resumed run have left, the last one."""
    return [max(files, key=lambda path: path.stat().st_mtime)]


def _cpu_seconds() -> float:
    """CPU time of this process, all of its threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
