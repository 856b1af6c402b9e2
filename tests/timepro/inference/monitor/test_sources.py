"""Real sources through PyAV: HTTP, raw samples on a pipe, a growing folder; a microphone where there is none."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from monitor_receivers import until
from scripted_answerer import RATE, beeps
from small_rtsp_server import SmallCamera
from timepro.inference.monitor.feeds import (
    Closed,
    FileDone,
    Finished,
    Item,
    Opened,
    Reader,
    Sound,
    open_source,
    source_kind,
)
from timepro.inference.monitor.feeds.folder import named_moment
from timepro.inference.monitor.settings import Stream

FAST = Stream(retry_first_s=0.05, retry_most_s=0.1, lost_after_s=1.0, settle_s=0.1)


class Read:
    """Reads a source in the monitor's thread, and keeps all items."""

    def __init__(self, text: str, settings: Stream = FAST, done: tuple[str, ...] = ()) -> None:
        self.said: list[str] = []
        self.items: list[Item] = []
        source = open_source(text, settings, UTC, set(done), self.said.append)
        self._reader = Reader(source, RATE, settings, self.said.append)
        self._reader.start()

    def until(self, holds: Any, timeout_s: float = 40.0) -> None:
        def more() -> bool:
            item = self._reader.next(0.02)
            if item is not None:
                self.items.append(item)
            return bool(holds(self.items))

        until(more, timeout_s, what=f"of {[type(i).__name__ for i in self.items[-5:]]} {self.said}")

    def sound(self) -> np.ndarray:
        return np.concatenate([item.samples for item in self.items if isinstance(item, Sound)])

    def of(self, kind: type) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]

    def stop(self) -> None:
        self._reader.stop()


def wav(samples: np.ndarray, rate: int = RATE, form: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form)
    return out.getvalue()


class Radio:
    """An HTTP server on loopback that sends pieces of a body without saying how long it is, as radio does.

    Args:
        steps: bytes to send, or a float to wait.
    """

    def __init__(self, *steps: Any, port: int = 0) -> None:
        self.asked = 0
        radio = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                radio.asked += 1
                self.send_response(200)
                self.send_header("Content-Type", "audio/mpeg")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for step in steps:
                        if isinstance(step, float):
                            time.sleep(step)
                        else:
                            self.wfile.write(step)

            def log_message(self, *words: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/live?token=secret"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """What is to be stopped at the end."""
    made: list[Any] = []
    yield made
    for one in made:
        one.stop() if isinstance(one, Read) else one.close()


def test_an_http_stream_is_read_as_it_comes_and_opened_again_after_its_end(opened: list[Any]) -> None:
    radio = Radio(wav(beeps(3, (1, 2, 1000)), form="MP3"))
    read = Read(radio.url)
    opened += [read, radio]
    read.until(lambda items: len(read.of(Opened)) >= 2)
    assert read.of(Closed) and read.of(Opened)[0].live
    loud = np.flatnonzero(np.abs(read.sound()[: 3 * RATE]) > 0.3) / RATE
    assert abs(loud[0] - 1) < 0.1 and abs(loud[-1] - 2) < 0.1
    assert not any("secret" in line for line in read.said)


def test_a_stream_that_hangs_is_given_up_after_its_limit(opened: list[Any]) -> None:
    radio = Radio(wav(beeps(3), form="MP3"), 30.0)
    read = Read(radio.url)
    opened += [read, radio]
    read.until(lambda items: read.of(Closed))
    assert radio.asked >= 1


def test_a_camera_is_heard_over_rtsp_and_again_after_a_cut(opened: list[Any]) -> None:
    camera = SmallCamera(beeps(3, (1, 2, 1000))[::2], speed=3)
    read = Read(camera.url)
    opened += [read, camera]
    read.until(lambda items: len(read.of(Sound)) > 0 and len(read.sound()) > 3 * RATE)
    assert read.of(Opened)[0].live
    loud = np.flatnonzero(np.abs(read.sound()) > 0.3) / RATE
    assert abs(loud[-1] - loud[0] - 1) < 0.1
    camera.cut()
    read.until(lambda items: len(read.of(Opened)) == 2 and isinstance(items[-1], Sound))
    assert read.of(Closed) and not any("secret" in line for line in read.said)


def test_an_address_that_refuses_is_tried_again_and_again_with_one_line(opened: list[Any]) -> None:
    read = Read("rtsp://127.0.0.1:1/cam")
    opened.append(read)
    read.until(lambda items: len(read.of(Closed)) >= 4)
    assert len(read.said) == 1 and "rtsp://127.0.0.1:1/cam" in read.said[0] and "refused" in read.said[0]


def test_a_recording_at_an_address_is_read_once(opened: list[Any], tmp_path: Path) -> None:
    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(tmp_path))

        def log_message(self, *words: Any) -> None:
            pass

    (tmp_path / "a.wav").write_bytes(wav(beeps(2)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    read = Read(f"http://127.0.0.1:{server.server_address[1]}/a.wav")
    opened.append(read)
    read.until(lambda items: read.of(Finished))
    assert not read.of(Opened)[0].live and abs(len(read.sound()) - 2 * RATE) < 200
    server.shutdown()
    server.server_close()


def test_raw_samples_and_a_wav_on_standard_input(opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sound = beeps(2, (0.5, 1, 1000))
    at_48k_stereo = np.repeat(np.repeat(sound, 3)[:, None], 2, axis=1)
    cases = [
        ((at_48k_stereo * 32767).astype("<i2").tobytes(), Stream(rate=48000, channels=2)),
        (wav(sound), Stream()),
    ]
    for body, settings in cases:
        ours, theirs = os.pipe()
        monkeypatch.setattr(os, "read", (lambda real, end: lambda h, n: real(end if h == 0 else h, n))(os.read, ours))
        threading.Thread(target=_write, args=(theirs, body), daemon=True).start()
        read = Read("-", settings)
        opened.append(read)
        read.until(lambda items, read=read: read.of(Finished))
        assert abs(len(read.sound()) - len(sound)) < 400 and not read.of(Opened)[0].live
        assert abs(np.flatnonzero(np.abs(read.sound()) > 0.25)[0] / RATE - 0.5) < 0.02
        monkeypatch.undo()


def _write(handle: int, body: bytes) -> None:
    with os.fdopen(handle, "wb") as out:
        out.write(body)


def test_what_is_no_sound_on_standard_input_ends_with_a_clear_line(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    real = os.read
    monkeypatch.setattr(os, "read", lambda h, n: real(ours if h == 0 else h, n))
    _write(theirs, b"this is a text\n" * 100)
    read = Read("-")
    opened.append(read)
    read.until(lambda items: read.of(Finished))
    assert "standard input: " in read.of(Finished)[0].reason and not read.of(Sound)


def test_a_growing_folder_gives_complete_files_by_the_time_in_their_names(opened: list[Any], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "cam_20261126T021000Z.flac", beeps(1), RATE)
    soundfile.write(tmp_path / "cam_20261126T020000Z.wav", beeps(2), 8000)
    (tmp_path / "notes.txt").write_text("not sound")
    (tmp_path / "cam_20261126T020500Z.wav").write_text("not sound either")
    (tmp_path / "heard.wav").write_bytes(wav(beeps(1)))
    read = Read(str(tmp_path), done=("heard.wav",))
    opened.append(read)
    read.until(lambda items: len(read.of(FileDone)) == 3)
    begun = [datetime.fromtimestamp(one.wall, UTC).strftime("%H:%M") for one in read.of(Opened)]
    assert begun == ["02:00", "02:10"] and abs(len(read.sound()) / RATE - 5) < 0.1
    assert any("020500Z.wav: cannot be listened to" in line for line in read.said)
    with (tmp_path / "cam_20261126T022000Z.wav").open("wb") as growing:  # written in two goes
        body = wav(beeps(1))
        growing.write(body[:9000])
        growing.flush()
        time.sleep(0.05)
        growing.write(body[9000:])
    read.until(lambda items: len(read.of(FileDone)) == 4)
    assert abs(len(read.sound()) / RATE - 6) < 0.1


def test_a_folder_that_goes_away_is_told_and_waited_for(opened: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    read = Read(str(folder))
    opened.append(read)
    shutil.rmtree(folder)
    read.until(lambda items: read.of(Closed))
    folder.mkdir()
    soundfile.write(folder / "a.wav", beeps(1), RATE)
    read.until(lambda items: read.of(FileDone))


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("a_2026-11-26_02-13-07.wav", "2026-11-26T02:13:07+00:00"), ("20261126021307.wav", "2026-11-26T02:13:07+00:00"),
        ("x20261126T021307+0100.wav", "2026-11-26T01:13:07+00:00"), 
        ("cam-2026-11-26T02:13:07Z", "2026-11-26T02:13:07+00:00"),
        ("20261399T021307.wav", ""), ("recording_12.wav", ""),
    ],
)  # fmt: skip
def test_moments_in_names(name: str, moment: str) -> None:
    found = named_moment(name, UTC)
    assert found == (datetime.fromisoformat(moment).timestamp() if moment else None)


def test_sources_that_are_none_are_refused_with_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="timepro detect reads files"):
        source_kind(str(tmp_path / "a.wav"))
    for word in ("", "ftp://x/y", "microphone", "no/such/folder"):
        with pytest.raises(ValueError, match="rtsp://, http:// or https://"):
            source_kind(word)
    assert [source_kind(w) for w in ("mic", "mic:hw:1", "-", str(tmp_path), "RTSP://h/x")] == [
        "microphone", "microphone", "pipe", "folder", "address",
    ]  # fmt: skip


def test_a_machine_without_a_microphone_says_so(opened: list[Any]) -> None:
    read = Read("mic:hw:99")
    opened.append(read)
    read.until(lambda items: read.of(Closed))
    assert "microphone hw:99 (alsa)" in read.said[0]
