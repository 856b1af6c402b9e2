"""A monitor on real sound, with a scripted answerer in place of the model and sources that do what the test says."""

from __future__ import annotations

import errno
import json
import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from monitor_receivers import Receiver, until
from scripted_answerer import RATE, ScriptedAnswerer, beeps
from timepro.inference.monitor import build
from timepro.inference.monitor import monitor as monitor_module
from timepro.inference.monitor.build import Built, Ears, build_monitor
from timepro.inference.monitor.checked import load_settings
from timepro.inference.monitor.clips import Ring
from timepro.inference.monitor.feeds import Finished, Item, Opened, Sound
from timepro.inference.monitor.feeds.base import SourceError
from timepro.inference.monitor.levels import Levels
from timepro.inference.monitor.listening import Listener
from timepro.inference.monitor.settings import Gate
from timepro.inference.monitor.spool import Spool


@dataclass
class ScriptedSource:
    """Connections, each a list of pieces of sound, waits in seconds, or an error that ends it."""

    connections: list[list[Any]]
    live: bool = False
    comes_back: bool = True
    is_folder: bool = False
    opened: int = field(default=0, init=False)

    def items(self, rate: int, stop: threading.Event) -> Iterator[Item]:
        self.opened += 1
        if not self.connections:
            raise SourceError("no more connections")
        yield Opened(live=self.live)
        for step in self.connections.pop(0):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                stop.wait(step)
                continue
            for start in range(0, len(step), 1600):
                yield Sound(step[start : start + 1600], time.monotonic())


class Bench:
    """Runs monitors in one folder, in threads."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.said = folder, list[str]()
        self._patch, self._running = patch, list[tuple[Built, threading.Thread]]()

    def start(self, source: Any, *overrides: str, answerer: ScriptedAnswerer | None = None) -> Built:
        words = [f"folder={self.folder}", "rules.max_not_heard_s=1", "rules.cool_down_s=0", "stream.retry_first_s=0.05"]
        settings = load_settings(
            None, [*words, "stream.retry_most_s=0.1", "window.hop_s=1", *overrides], {"source": "-"}
        )
        if isinstance(source, str):
            settings.source = source
        else:
            self._patch.setattr(build, "open_source", lambda *_: source)
        built = build_monitor(settings, Ears(answerer or ScriptedAnswerer()), self.said.append)
        thread = threading.Thread(target=built.monitor.run, daemon=True)
        thread.start()
        self._running.append((built, thread))
        return built

    def end(self, built: Built) -> None:
        built.monitor.stop()
        self.wait(built)

    def wait(self, built: Built) -> None:
        thread = next(thread for one, thread in self._running if one is built)
        thread.join(60)
        assert not thread.is_alive(), "the monitor does not end"

    def run(self, source: Any, *overrides: str, answerer: ScriptedAnswerer | None = None) -> Built:
        built = self.start(source, *overrides, answerer=answerer)
        self.wait(built)
        return built

    def told(self, kinds: Sequence[str] = ("alert", "end", "stream_lost", "stream_back", "audio_skipped")) -> list[Any]:
        path = self.folder / "alerts.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [message for line in lines if (message := json.loads(line))["kind"] in kinds]

    def close(self) -> None:
        for built, thread in self._running:
            built.monitor.stop()
            thread.join(60)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path / "monitor", monkeypatch)
    yield made
    made.close()


def once(*pieces: Any, **more: Any) -> ScriptedSource:
    return ScriptedSource([list(pieces)], comes_back=False, **more)


def kinds(messages: list[Any]) -> list[str]:
    return [message["kind"] for message in messages]


def test_an_alert_comes_with_its_end_and_a_clip_of_what_was_heard(bench: Bench) -> None:
    bench.run(once(beeps(14, (7.0, 8.0, 1000))), "clips.pre_roll_s=2", "clips.post_roll_s=1")
    alert, end = bench.told(["alert", "end"])
    assert (alert["label"], alert["confidence"], end["event"], end["reason"]) == (
        "glass_breaking", 0.9, alert["event"], "not heard",
    )  # fmt: skip
    assert abs(end["duration_s"] - 1.0) < 0.03
    (clip,) = (bench.folder / "clips").rglob("*.flac")
    assert str(clip).endswith(alert["clip"]) and clip.name.startswith(alert["onset"][:10].replace("-", ""))
    sound, rate = soundfile.read(clip)
    assert rate == RATE and abs(len(sound) / rate - 4.0) < 0.05
    loud = np.flatnonzero(np.abs(sound) > 0.2) / rate
    assert abs(loud[0] - 2.0) < 0.02 and abs(loud[-1] - 3.0) < 0.02


def test_events_at_every_place_of_a_window_are_told_once(bench: Bench) -> None:
    """Onsets move through the windows' edges by 0.31 s; a fifth of the beeps is longer than a window."""
    wanted = [(3 + 4.31 * i, 3 + 4.31 * i + (2.6 if i % 5 == 0 else 0.3), 1000) for i in range(10)]
    bench.run(once(beeps(50, *wanted)))
    ends = bench.told(["end"])
    assert len(ends) == len(bench.told(["alert"])) == 10
    assert np.allclose([e["duration_s"] for e in ends], [off - on for on, off, _ in wanted], atol=0.03)


def test_silence_costs_no_call_and_the_share_is_told(bench: Bench) -> None:
    answerer = ScriptedAnswerer()
    quiet = beeps(600, noise=1e-5)
    quiet[300 * RATE : 301 * RATE] = beeps(1, (0, 1, 1000))
    built = bench.run(once(quiet), answerer=answerer)
    assert answerer.asked <= 3 and len(bench.told(["alert"])) == 1
    assert built.monitor.status()["saved"] > 0.99 and "100 %" in built.monitor.summary()


def test_any_loud_sound_is_an_event_without_the_model(bench: Bench) -> None:
    bench.run(once(beeps(10, (3, 4, 3000))), "loud.level_db=-20", "labels.loud_sound.cool_down_s=1")
    alerts = bench.told(["alert"])
    assert [one["label"] for one in alerts] == ["loud_sound"]  # and no label of the model, since labels are named


def test_a_stream_that_stops_is_told_and_so_is_its_return_and_open_events_end(bench: Bench) -> None:
    beep = beeps(3, (1, 3, 1000))
    source = ScriptedSource([[beep, SourceError("cable cut")]], live=True)
    built = bench.start(source, "stream.lost_after_s=0.5", "rules.max_not_heard_s=0.3")
    until(lambda: kinds(bench.told()) == ["alert", "stream_lost", "end"], what="lost, and the event has ended")
    lost, end = bench.told(["stream_lost", "end"])
    assert end["reason"] == "stream lost" and abs(end["duration_s"] - 2) < 0.05 and source.opened > 2
    assert any("cable cut" in line and "trying again" in line for line in bench.said)
    source.connections.append([beeps(2, (1, 1.5, 1000)), 30.0])
    # 3 s and 2 s of sound: the stream is back with the first piece, and stopping would leave out what is not taken yet
    until(lambda: "stream_back" in kinds(bench.told()) and built.monitor.heard_s > 4.95)
    back = bench.told(["stream_back"])[0]
    assert back["event"] == lost["event"] and back["since"] == lost["since"]
    bench.end(built)
    assert len(bench.told(["alert"])) == len(bench.told(["end"])) == 2


def test_a_short_cut_goes_on_with_the_same_event(bench: Bench) -> None:
    source = ScriptedSource([[beeps(3, (1, 3, 1000)), SourceError("cut")], [beeps(3, (0, 1, 1000)), 30.0]], live=True)
    built = bench.start(source, "rules.max_not_heard_s=2")
    until(lambda: source.opened == 2 and built.monitor.heard_s > 5.9)
    bench.end(built)
    assert kinds(bench.told()) == ["alert", "end"]
    assert 3.0 <= bench.told(["end"])[0]["duration_s"] < 4


def test_stopping_ends_what_is_open_and_writes_its_clip(bench: Bench) -> None:
    built = bench.start(ScriptedSource([[beeps(5, (3, 5, 1000)), 30.0]]))
    until(lambda: bench.told(["alert"]))
    bench.end(built)
    assert [m["reason"] for m in bench.told(["end"])] == ["stopped"]
    assert len(list((bench.folder / "clips").rglob("*.flac"))) == 1


def test_a_model_that_is_too_slow_for_a_live_stream_skips_sound_and_says_so(bench: Bench) -> None:
    slow = ScriptedAnswerer(takes_s=0.3)
    bench.run(once(beeps(60), live=True), "stream.most_behind_s=4", answerer=slow)
    skipped = bench.told(["audio_skipped"])
    assert skipped and sum(m["duration_s"] for m in skipped) > 20 and "window.hop_s" in skipped[0]["reason"]


def test_a_model_that_fails_on_a_window_goes_on_and_one_that_always_fails_ends(bench: Bench) -> None:
    class Failing(ScriptedAnswerer):
        def answer(self, windows: Sequence[np.ndarray]) -> Any:
            if 2 <= self.asked < 4:
                self.asked += 1
                raise RuntimeError("out of memory")
            return super().answer(windows)

    bench.run(once(beeps(20, (12, 13, 1000))), answerer=Failing())
    assert kinds(bench.told(["alert", "end"])) == ["alert", "end"]
    assert sum("out of memory" in line for line in bench.said) == 2


class SteppedReader:
    """Gives 100 ms at a time, and sets both clocks to the moment at which they would have come in."""

    behind_s = 0.0

    def __init__(self, sound: np.ndarray, clocks: dict[str, float], jump_at: float, jump: float) -> None:
        self._sound, self._clocks, self._jump_at, self._jump, self._place = sound, clocks, jump_at, jump, -1600

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def next(self, timeout_s: float) -> Item:
        self._place += 1600
        if self._place == 0:
            return Opened(live=True)
        now = self._place / RATE
        self._clocks["steady"] = now
        self._clocks["wall"] = START + now + (self._jump if now >= self._jump_at else 0.0)
        piece = self._sound[self._place - 1600 : self._place]
        return Sound(piece, now) if len(piece) else Finished("the script is over")


START = 1.8e9


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_doubles_no_alert_and_later_times_follow_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    clocks = {"steady": 0.0, "wall": START}
    sound = beeps(20, (2, 8, 1000), (15, 16, 1000))
    monkeypatch.setattr(build, "Reader", lambda *_: SteppedReader(sound, clocks, 5.0, jump))
    with monkeypatch.context() as patch:
        patch.setattr(monitor_module, "time", FakeTime(clocks))
        bench.run(once())
    first, second = bench.told(["alert"])
    assert [m["duration_s"] for m in bench.told(["end"])] == pytest.approx([6, 1], abs=0.05)
    moments = [datetime.fromisoformat(m["onset"]).timestamp() - START for m in (first, second)]
    assert moments == pytest.approx([2, 15 + jump], abs=0.1)
    assert sum("clock was set" in line for line in bench.said) == 1


class FakeTime:
    """The module `time`, with clocks that the test sets."""

    def __init__(self, clocks: dict[str, float]) -> None:
        self._clocks = clocks

    def time(self) -> float:
        return self._clocks["wall"]

    def monotonic(self) -> float:
        return self._clocks["steady"]


def test_on_a_full_disk_alerts_are_delivered_all_the_same_and_it_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, queues and clips cannot be written; a receiver elsewhere gets every message, each once."""
    receiver, full = Receiver(), OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    hook = f"sinks.webhooks=[{{url: '{receiver.url}'}}]"
    with monkeypatch.context() as patch:
        patch.setattr("timepro.inference.monitor.events.write_state", refuse)
        patch.setattr("timepro.inference.monitor.clips.write_bytes", refuse)
        patch.setattr(Spool, "_append", refuse)
        bench.run(once(beeps(14, (3, 4, 1000), (9, 10, 1000))), hook)
    assert kinds(receiver.taken) == ["alert", "end", "alert", "end", "stream_lost"]
    assert len(set(receiver.ids())) == 5
    for part in ("state.json cannot be written: No space left", "cannot be kept on disk", "clip"):
        assert any(part in line for line in bench.said), part
    bench.run(once(beeps(4, (1, 2, 1000))), hook)  # there is room again
    assert kinds(receiver.taken[5:]) == ["alert", "end", "stream_lost"]
    assert len(set(receiver.ids())) == len(receiver.taken)
    receiver.close()


def test_old_clips_go_and_the_newest_stay_within_their_room(bench: Bench) -> None:
    folder = bench.folder / "clips" / "20200101"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.flac").write_bytes(b"x" * 300_000)
    old = time.time() - 40 * 86400
    os.utime(folder / "3.flac", (old, old))
    bench.run(once(beeps(3)), "clips.most_mib=0.7")
    assert sorted(path.name for path in folder.iterdir()) == ["1.flac", "2.flac"]


def test_what_is_kept_in_memory_does_not_grow_with_the_stream() -> None:
    ring, levels = Ring(RATE, 3.0), Levels(RATE, 5.0)
    heard = Listener(ScriptedAnswerer(), 2.0, 0.5, Gate(), levels, print)
    sizes = []
    for step in range(1200):
        piece = beeps(0.1, (0, 0.1, 1000)) if step % 50 < 5 else np.zeros(1600, np.float32)
        ring.push(step / 10, piece)
        levels.push(step / 10, piece)
        heard.push(step / 10, piece)
        if step % 20 == 0:
            sizes.append(len(pickle.dumps([vars(one) for one in (ring, levels, heard)])))
    assert max(sizes[45:]) <= max(sizes[30:45]) + 100
    assert 3.0 <= len(ring.cut(0, 200)) / RATE <= 3.2


def test_a_clip_over_a_gap_of_the_stream_keeps_its_times() -> None:
    ring = Ring(RATE, 60.0)
    ring.push(0.0, np.full(RATE, 0.5, np.float32))
    ring.push(3.0, np.full(RATE, 0.5, np.float32))
    cut = ring.cut(0.5, 3.5)
    assert len(cut) == 3 * RATE
    assert cut[: RATE // 2].all() and not cut[RATE // 2 : 2 * RATE + RATE // 2].any() and cut[-RATE // 2 :].all()
