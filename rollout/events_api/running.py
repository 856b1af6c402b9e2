"""One request from its place in the queue to its answer: waiting, listening in a thread, deadlines, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rollout.events_api.line import Line, Place
from rollout.events_api.listening import Heard, Job, Listener, Stopped
from rollout.events_api.metrics import Metrics
from rollout.events_api.models import EventsReply, Progress
from rollout.events_api.problems import Problem
from rollout.events_api.settings import ServeSettings
from rollout.events_api.uploads import Upload

_LOG = logging.getLogger(__name__)
_WAIT_STEP_S = 1.0
Tell = Callable[[Progress], None]


class Runner:
    """Runs requests, `settings.at_once` at a time."""

    def __init__(self, listener: Callable[[], Listener], settings: ServeSettings, line: Line, metrics: Metrics) -> None:
        self._listener, self._settings, self._line, self._metrics = listener, settings, line, metrics
        self._threads = ThreadPoolExecutor(settings.at_once, thread_name_prefix="events")

    async def run(self, place: Place, upload: Upload, folder: Path, deadline: float, tell: Tell) -> EventsReply:
        """Wait for the turn, listen, and give the place and the folder back once the thread has ended.

        Cancelling it stops the work at its next report.

        Args:
            folder: the request's own; removed with the place.
            deadline: on the clock of `time.monotonic`.

        Raises:
            Problem: whatever went wrong.
        """
        arrived = time.monotonic()
        self._metrics.upload_bytes.inc(upload.size)
        try:
            await self._turn(place, deadline, tell)
        except BaseException:
            _after(place, folder)
            raise
        self._metrics.waited_s.observe(time.monotonic() - arrived)
        tell(Progress())
        loop = asyncio.get_running_loop()

        def report(position: float, duration: float | None) -> None:  # from the thread
            _on(loop, tell, Progress(position=position, duration=duration))

        listener = self._listener()
        job = Job(self._settings.max_audio_s, report)
        began = time.monotonic()
        work = self._threads.submit(listener.listen, upload.path, upload.asked, job)
        # The place is given back when the thread has ended, which may be after the request has: else more of them than
        # allowed would run.
        work.add_done_callback(lambda _: _on(loop, _after, place, folder))
        heard = await self._wait(work, job, upload, deadline)
        return self._reply(upload, listener.name, heard, time.monotonic() - began)

    async def _turn(self, place: Place, deadline: float, tell: Tell) -> None:
        turn = asyncio.ensure_future(place.turn())
        try:
            while not turn.done():
                tell(Progress(waiting=max(0, self._line.waiting - 1)))
                await asyncio.wait([turn], timeout=min(_WAIT_STEP_S, max(0.0, deadline - time.monotonic())))
                if not turn.done() and time.monotonic() >= deadline:
                    wait = self._line.expected_wait_s()
                    raise Problem(
                        503, "waited_too_long", f"Its turn did not come within {self._settings.time_limit_s:g} s.",
                        "Requests before it took all of the time that a request may take.",
                        f"Send it again in about {wait} s.", {"Retry-After": str(wait)},
                    )  # fmt: skip
            turn.result()
        finally:
            if not turn.done():
                turn.cancel()

    async def _wait(self, work: Future[Heard], job: Job, upload: Upload, deadline: float) -> Heard:
        waiting = asyncio.wrap_future(work)
        waiting.add_done_callback(lambda late: late.cancelled() or late.exception())  # looked at, even after the answer
        try:
            done, _ = await asyncio.wait([waiting], timeout=max(0.0, deadline - time.monotonic()))
        except asyncio.CancelledError:
            job.stop()
            raise
        if not done:
            job.stop()
            raise Problem(
                504, "time_limit", f"It was not answered within {self._settings.time_limit_s:g} s.",
                "The recording is long, or the machine is busy.",
                "Send a shorter part, draw fewer samples, or start the server with a larger --time-limit.",
            )  # fmt: skip
        return self._result(waiting, upload)

    def _result(self, waiting: asyncio.Future[Heard], upload: Upload) -> Heard:
        """What the listener gave; what it raised, as a Problem that calls the recording by its client's name."""
        try:
            return waiting.result()
        except Problem:
            raise
        except Stopped:
            raise Problem(
                503, "stopped", "The work was stopped.", "The server is shutting down.", "Send it again."
            ) from None
        except (ValueError, FileNotFoundError) as error:
            raise Problem(
                422, "cannot_answer", _first_line(error).replace(str(upload.path), upload.name),
                "The recording or the question cannot be answered as it is.",
                "Mend what is named; GET /v1/events lists tasks and labels.",
            ) from error  # fmt: skip
        except (RuntimeError, OSError) as error:
            _LOG.warning("the model did not answer: %s", error)
            raise Problem(
                503, "no_answer", "The model did not answer.", _first_line(error),
                "Send it again; if it stays so, /health and the server's log say more.", {"Retry-After": "5"},
            ) from error  # fmt: skip
        except Exception as error:
            _LOG.exception("a request failed")
            raise Problem(
                500, "internal", "The server has failed at this request.", "That is a fault of this program.",
                "The server's log says where it happened; please report it with that.",
            ) from error  # fmt: skip

    def _reply(self, upload: Upload, model: str, heard: Heard, seconds: float) -> EventsReply:
        metrics, factor = self._metrics, seconds / heard.duration if heard.duration else 0.0
        metrics.audio_s.inc(heard.duration)
        metrics.found.inc(sum(event.kept for event in heard.events))
        metrics.seconds.observe(seconds)
        metrics.factor.observe(factor)
        return EventsReply(
            file=upload.name, duration=heard.duration, model=model, task=heard.task,
            question=heard.question, confidence_kind=heard.confidence_kind, events=heard.events, notes=heard.notes,
            seconds=round(seconds, 3), real_time_factor=round(factor, 4), spectrogram=heard.spectrogram,
        )  # fmt: skip


def _on(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """Call something on the loop from another thread; a server that has shut down has none, and nobody to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _after(place: Place, folder: Path) -> None:
    place.leave()
    shutil.rmtree(folder, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
