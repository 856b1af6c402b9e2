"""The monitor itself: takes what a source gives, keeps positions and moments, and says when the stream dies."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timepro.inference.monitor.clips import ClipWriter, Ring
from timepro.inference.monitor.events import Events
from timepro.inference.monitor.feeds import Closed, FileDone, Finished, Item, Opened, Reader, Skipped, Sound
from timepro.inference.monitor.levels import Levels, loud_sounds
from timepro.inference.monitor.listening import Listener
from timepro.inference.monitor.messages import BACK, LOST, Writer
from timepro.inference.monitor.settings import MonitorSettings
from timepro.inference.monitor.sinks import Delivery
from timepro.inference.monitor.timeline import Drift, Timeline

_TICK_S = 0.25
_IDLE_S = 1.0  # a folder without a new file for so long: what is left of the last one is listened to
_GRACE_S = 5.0  # at the end, for deliveries
_LOOK_EVERY = 500  # files
_NAMES_S = 1.5  # times in the names of files are whole seconds


@dataclass(frozen=True)
class Parts:
    """What a monitor is put together from, see `build`."""

    listener: Listener
    levels: Levels
    ring: Ring
    clips: ClipWriter
    timeline: Timeline
    events: Events
    writer: Writer
    deliveries: Sequence[Delivery]


class Monitor:
    """Runs until it is stopped or its source has finished.

    Args:
        settings: checked.
        parts: see `Parts`.
        reader: of the source.
        is_folder: its sound comes file by file.
        say: takes lines for the user.
    """

    def __init__(
        self, settings: MonitorSettings, parts: Parts, reader: Reader, is_folder: bool, say: Callable[[str], None]
    ) -> None:
        self._settings, self._parts, self._reader, self._is_folder, self._say = settings, parts, reader, is_folder, say
        self._stop = threading.Event()
        self._drift, self._is_live = Drift(), True
        self._end = 0.0  # position behind the last sound
        self._opened: Opened | None = None  # a connection whose first sound has not come
        self._arrived = self._taken = time.monotonic()  # of the last sound, and when it was done with
        self._files: list[tuple[str, float, float]] = []  # listened to, but for the end: name, end, moment of the end
        self._file_from, self._file_s = 0.0, 0.0  # where the last file began, and its length
        self._reason = "no sound comes"  # why, as far as the source says
        self.heard_s = 0.0
        self.finished = ""  # why the source has nothing more

    @property
    def source(self) -> str:
        """As it may be shown."""
        return self._parts.writer.source

    def stop(self) -> None:
        """End soon and cleanly; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Listen."""
        parts, state = self._parts, self._parts.events.state
        # Where sound can be read again it goes on at the same moment; else at this one.
        parts.timeline.anchor(0.0, state.resume_at if self._is_folder and state.resume_at else time.time())
        for delivery in parts.deliveries:
            delivery.start()
        parts.events.restore(math.inf if self._is_folder else 0.0)
        self._taken = time.monotonic()
        self._reader.start()
        try:
            while not self._stop.is_set() and not self.finished:
                item = self._reader.next(_TICK_S)
                if item is not None:
                    self._take(item)
                self._tick()
        finally:
            self._finish()

    def status(self) -> dict[str, Any]:
        """What the page shows of this moment; called from other threads."""
        parts, state = self._parts, self._parts.events.state
        end, sounds = parts.listener.last
        asked, silent = parts.listener.asked, parts.listener.silent
        return {
            "monitor": self._settings.name,
            "source": parts.writer.source,
            "time": time.time(),
            "stream": "lost" if state.lost_since else "on",
            "lost_since": state.lost_since,
            "reason": self._reason if state.lost_since else "",
            "level_db": round(parts.levels.now, 1),
            "background_db": round(parts.levels.background(), 1),
            "behind_s": round(self._reader.behind_s, 1),
            "asked": asked,
            "silent": silent,
            "saved": silent / (asked + silent) if asked + silent else 0.0,
            "heard_s": self.heard_s,
            "asking_s": parts.listener.asking_s,
            "open": parts.events.open_labels(),
            "now": [
                {"label": one.label, "confidence": one.confidence, "onset": parts.timeline.wall(end) + one.onset}
                for one in sounds
            ],
            "now_age_s": self._end - end if end else None,
            "sinks": [{"name": d.sink.name, "waiting": len(d.spool), "trouble": d.trouble} for d in parts.deliveries],
        }

    def summary(self) -> str:
        """What was done so far, in one line."""
        listener = self._parts.listener
        windows = listener.asked + listener.silent
        saved = f"{100 * listener.silent / windows:.0f} %" if windows else "none"
        return (
            f"{self.heard_s:,.0f} s of sound, {self._parts.events.alerts} alerts; {windows:,} windows, of which "
            f"{saved} were silent and cost no call; {listener.asking_s:,.1f} s in the model"
        )

    def _take(self, item: Item) -> None:
        if isinstance(item, Sound):
            self._sound(item)
            self._taken = time.monotonic()
        elif isinstance(item, Opened):
            self._opened, self._is_live = item, item.live
        elif isinstance(item, Skipped):
            self._flush()
            self._end += item.seconds
            text = "the model is slower than the stream; use longer hops (window.hop_s) or a faster machine"
            self._say(f"{item.seconds:.1f} s of sound were skipped: {text}")
            moment = self._parts.timeline.wall(self._end)
            self._parts.events.commit([self._parts.writer.skipped(moment, item.seconds, text)])
        elif isinstance(item, FileDone):
            self._file_s = self._end - self._file_from
            self._files.append((item.name, self._end, self._parts.timeline.wall(self._end)))
        elif isinstance(item, Closed):
            self._reason = item.reason
        elif isinstance(item, Finished):
            self.finished = item.reason

    def _sound(self, sound: Sound) -> None:
        parts, seconds = self._parts, len(sound.samples) / self._parts.ring.rate
        if self._opened is None and parts.events.state.lost_since and not self._is_folder:
            self._opened = Opened(live=self._is_live)  # a pipe that was still for a while: times count anew
        if self._opened is not None:
            self._begin(self._opened, sound.arrived, seconds)
            self._opened, self._file_from = None, self._end
        position = self._end
        self._end += seconds
        self.heard_s += seconds
        self._arrived = sound.arrived
        if parts.events.state.lost_since:
            self._back()
        parts.ring.push(position, sound.samples)
        loud = loud_sounds(parts.levels.push(position, sound.samples), self._settings.loud)
        parts.events.hear([*loud, *parts.listener.push(position, sound.samples)])
        self._told()
        if self._is_live:
            self._follow_clock(sound.arrived)

    def _begin(self, opened: Opened, arrived: float, seconds: float) -> None:
        """Where on the timeline a connection or a file begins, and at which moment."""
        timeline, end = self._parts.timeline, self._end
        if opened.wall is not None:
            if not self.heard_s and not self._parts.events.state.resume_at:
                wall, self._end = opened.wall, end
            elif abs(opened.wall - timeline.wall(end)) <= _NAMES_S:
                return  # it follows on the last one
            else:
                wall, self._end = opened.wall, max(end, timeline.position(opened.wall))
        else:
            wall = time.time() - (time.monotonic() - arrived) - seconds
            since = arrived - seconds - self._arrived
            self._end = end + max(0.0, since)
        if self._end > end:
            self._flush()
        timeline.anchor(self._end, wall)
        self._drift = Drift()

    def _follow_clock(self, arrived: float) -> None:
        moment = time.time() - (time.monotonic() - arrived)
        moved = self._drift.note(arrived, moment - self._parts.timeline.wall(self._end))
        if moved:
            self._parts.timeline.anchor(self._end, self._parts.timeline.wall(self._end) + moved)
            self._say(f"the clock was set, or the stream has a hole: times are {moved:+.1f} s from what they were")

    def _told(self) -> None:
        """What has been listened to can end events, complete clips, and finish files."""
        parts, until = self._parts, self._parts.listener.heard_until
        parts.events.advance(until)
        parts.clips.tick(self._end)
        ready = [one for one in self._files if one[1] <= until + 1e-6]
        if ready:
            self._files = self._files[len(ready) :]
            done = [*parts.events.state.done, *(name for name, _, _ in ready)]
            if len(done) % _LOOK_EVERY == 0:  # names of files that somebody has removed
                done = [name for name in done if (Path(self._settings.source) / name).exists()]
            parts.events.state.done = done
            parts.events.state.resume_at = ready[-1][2]
            parts.events.commit([])

    def _flush(self) -> None:
        """The stretch of sound ends here: listen to what is left of it."""
        self._parts.events.hear(self._parts.listener.finish())
        self._told()

    def _tick(self) -> None:
        """What time alone brings: the stream is lost, events end without sound, old clips go."""
        idle = time.monotonic() - self._taken
        lost = self._parts.events.state.lost_since
        if self._is_folder and idle > _IDLE_S and self._parts.listener.waits:
            self._flush()
        if not lost and idle > max(self._settings.stream.lost_after_s, 3 * self._file_s):
            self._lost(self._reason)
        elif lost:
            self._parts.events.advance(self._end + idle, "stream lost")
        self._parts.clips.sweep()

    def _lost(self, reason: str) -> None:
        parts = self._parts
        self._flush()
        if self._is_folder:  # its next file may be of any time, so nothing can be waited for
            parts.events.close("stream lost")
        since = time.time() - (time.monotonic() - self._taken)
        parts.events.state.lost_since = since
        self._say(f"the stream is lost: {reason}")
        parts.events.commit([parts.writer.stream(LOST, time.time(), since, reason)])

    def _back(self) -> None:
        events = self._parts.events
        since, events.state.lost_since = events.state.lost_since, 0.0
        self._reason = "no sound comes"
        away = time.time() - since
        self._say(f"the stream is back after {away:.1f} s")
        events.commit([self._parts.writer.stream(BACK, time.time(), since, f"away for {away:.1f} s")])

    def _finish(self) -> None:
        """End everything that is open, and let the queues empty for a moment."""
        parts = self._parts
        self._reader.stop()
        try:
            self._flush()
        except Exception as error:  # of the model: what is open must get its end all the same
            self._say(f"the last seconds were not listened to: {type(error).__name__}: {error}")
        parts.events.close("stream ended" if self.finished else "stopped")
        parts.clips.tick(self._end, is_over=True)
        if self.finished and not parts.events.state.lost_since:
            self._lost(self.finished)
        parts.events.commit([])
        deadline = time.monotonic() + _GRACE_S
        for delivery in parts.deliveries:
            left = delivery.close(max(0.0, deadline - time.monotonic()))
            if left:
                self._say(f"{delivery.sink.name}: {left} messages wait on disk for the next start")
