"""The table of faults, on a monitor in a process of its own (with a scripted answerer): no alert lost, none doubled.

| fault | where else it is tested |
| --- | --- |
| receiver down | `test_sinks.py`: away, failing, refusing, hanging |
| stream cut | `test_monitor.py`, `test_sources.py`: cut, hanging, refused |
| broker gone | `test_sinks.py`: restarted, cut, refusing, never acknowledging |
| disk full | `test_spool.py`, `test_sinks.py`: journal and file |
| clock jump | `test_monitor.py`: an hour forwards, an hour back |
| killed between alert and delivery | here alone |
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from monitor_receivers import Receiver, until
from scripted_answerer import RATE, beeps
from small_mqtt_broker import SmallBroker

PROGRAM = Path(__file__).parents[3] / "monitor_process.py"
FAST = ("rules.cool_down_s=0", "rules.max_not_heard_s=1", "window.hop_s=1", "sinks.retry_first_s=0.05",
        "sinks.retry_most_s=0.2", "stream.settle_s=0.05", "time_zone=UTC")  # fmt: skip


class Process:
    """A monitor that reads raw samples from a pipe, or a folder."""

    def __init__(self, folder: Path, source: str, *overrides: str, takes_s: float = 0.0) -> None:
        self.folder = folder
        self._log = (folder.parent / "log").open("ab")
        words = [str(PROGRAM), source, str(takes_s), f"folder={folder}", f"stream.rate={RATE}", *FAST, *overrides]
        self._starts = self.log().count("listening to")
        # Named, since the program's own folder has a `timepro`, too: that of the tests.
        environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stderr=self._log, env=environment
        )

    def feed(self, sound: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((sound * 32767).astype("<i2").tobytes())
        self.process.stdin.flush()

    def ready(self) -> Process:
        """Wait until it listens, and can be ended by a signal."""
        until(lambda: self.log().count("listening to") > self._starts, 60, what=self.log())
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def log(self) -> str:
        return (self.folder.parent / "log").read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()


@pytest.fixture
def started() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for one in made:
        one.close()


def journal(folder: Path, sink: str) -> list[str]:
    """Kinds of the messages that wait in a queue."""
    (path,) = (folder / "queues").glob(f"{sink}*.journal") or [None]
    lines = path.read_bytes().splitlines()
    return [json.loads(line.split(b" ", 2)[2])["kind"] for line in lines if line.startswith(b"W")]


def lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_kill_between_alert_and_delivery_loses_nothing_and_the_event_gets_its_end(
    tmp_path: Path, started: list[Any]
) -> None:
    receiver = Receiver(answers=(503,) * 10_000)
    hook = [f"sinks.webhooks=[{{url: '{receiver.url}'}}]"]
    folder = tmp_path / "monitor"
    first = Process(folder, "-", *hook)
    started.append(first)
    first.feed(beeps(4, (1.5, 4, 1000)))
    until(lambda: receiver.seen, what="a first attempt")
    first.kill()
    assert receiver.taken == [] and journal(folder, "webhook") == ["alert"]
    port = receiver.port
    receiver.close()
    time.sleep(1.2)  # longer than max_not_heard_s: the event is over
    back = Receiver(port)
    second = Process(folder, "-", *hook)
    started += [second, back]
    second.feed(beeps(5))
    until(lambda: len(back.taken) == 2)
    assert [m["kind"] for m in back.taken] == ["alert", "end"]
    assert len({m["event"] for m in back.taken}) == 1 and back.taken[1]["clip"] == ""
    second.feed(beeps(5, (1, 2, 1000)))
    until(lambda: len(back.taken) == 4)
    assert second.terminate() == 0
    third = Process(folder, "-", *hook)
    started.append(third)
    third.feed(beeps(2))
    third.ready()
    time.sleep(0.3)
    assert third.terminate() == 0
    assert len(back.taken) == 4 and len({m["id"] for m in back.taken}) == 4
    assert Counter(m["kind"] for m in lines(folder)) == {"alert": 2, "end": 2}


def test_kills_at_any_moment_double_nothing_in_the_file_and_lose_nothing(tmp_path: Path, started: list[Any]) -> None:
    """Eight recordings with a beep each in a folder that is read again from where the last start was."""
    recordings, folder, receiver, rng = tmp_path / "in", tmp_path / "monitor", Receiver(), random.Random(3)
    recordings.mkdir()
    for number in range(8):
        sound = beeps(6, (2 + 0.2 * number, 3 + 0.2 * number, (1000, 2000)[number % 2]))
        soundfile.write(recordings / f"20261126T0{number}0000Z.wav", sound, RATE)
    hook = f"sinks.webhooks=[{{url: '{receiver.url}'}}]"
    kills = 0
    for _ in range(5):
        one = Process(folder, str(recordings), hook, takes_s=0.03)
        started.append(one)
        before = len(receiver.taken)
        until(lambda: len(receiver.taken) > before or one.process.poll() is not None, 60)  # noqa: B023
        time.sleep(rng.uniform(0, 0.3))
        kills += one.process.poll() is None
        one.kill()
    last = Process(folder, str(recordings), hook, takes_s=0.03)
    started += [last, receiver]
    until(lambda: len({m["id"] for m in receiver.taken}) >= 16, 60)
    assert last.terminate() == 0
    assert kills == 5
    told = [m for m in lines(folder) if m["kind"] in ("alert", "end")]
    assert Counter(m["kind"] for m in told) == {"alert": 8, "end": 8}
    assert sorted(m["onset"][11:13] for m in told if m["kind"] == "alert") == [f"0{n}" for n in range(8)]
    assert len({m["id"] for m in told}) == 16
    # A kill between the answer and its mark makes one message come again, with the same id; never a new id.
    assert {m["id"] for m in receiver.taken if m["kind"] in ("alert", "end")} == {m["id"] for m in told}


def test_sigterm_ends_events_and_keeps_what_waits_for_the_next_start(tmp_path: Path, started: list[Any]) -> None:
    broker = SmallBroker()
    folder, mqtt = tmp_path / "monitor", [f"sinks.mqtt.port={broker.port}", "sinks.mqtt.host=127.0.0.1"]
    mqtt.append("sinks.mqtt.timeout_s=0.5")
    first = Process(folder, "-", *mqtt)
    started.append(first)
    until(lambda: broker.text("timepro/monitor/availability") == "online", what="seen before its first alert")
    broker.close()
    first.feed(beeps(4, (1.5, 4, 1000)))
    until(lambda: lines(folder))
    assert first.terminate() == 0
    assert [m["kind"] for m in lines(folder)] == ["alert", "end"] and lines(folder)[1]["reason"] == "stopped"
    assert (folder / "clips" / lines(folder)[1]["clip"]).is_file()
    assert journal(folder, "mqtt") == ["alert", "end"] and "2 messages wait on disk" in first.log()
    back = SmallBroker(broker.port)
    second = Process(folder, "-", *mqtt)
    started.append(second)
    until(lambda: len([t for t, _ in back.published if t == "timepro/monitor/alerts"]) == 2)
    assert second.terminate() == 0
    assert back.text("timepro/monitor/availability") == "offline"
    back.close()


def test_a_second_monitor_in_the_same_folder_is_refused(tmp_path: Path, started: list[Any]) -> None:
    first = Process(tmp_path / "monitor", "-")
    started.append(first)
    first.ready()
    second = Process(tmp_path / "monitor", "-")
    started.append(second)
    assert second.process.wait(40) != 0
    assert f"in use by the monitor of process {first.process.pid}" in second.log()


def test_a_pipe_that_ends_ends_the_monitor_and_one_without_sound_fails(tmp_path: Path, started: list[Any]) -> None:
    one = Process(tmp_path / "monitor", "-")
    started.append(one)
    one.feed(beeps(4, (1, 2, 1000)))
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.process.wait(40) == 0
    assert [m["kind"] for m in lines(tmp_path / "monitor")] == ["alert", "end", "stream_lost"]
    two = Process(tmp_path / "other", "-", "stream.rate=0")
    started.append(two)
    assert two.process.stdin is not None
    two.process.stdin.write(b"text")
    two.process.stdin.close()
    assert two.process.wait(40) == 1 and "nothing could be heard: standard input: " in two.log()
