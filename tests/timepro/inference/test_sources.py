"""Files and addresses of every kind: events at their times, or one clear line."""

from __future__ import annotations

import http.server
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from loud import BURSTS, SECONDS, LoudAnswerer, bursts, write_media
from timepro.inference.detections import Detection
from timepro.inference.detector import Detector
from timepro.inference.sources import open_source


def hear(source: str | Path) -> list[Detection]:
    return Detector(answerer=LoudAnswerer(), batch=3).detect(source)


def assert_bursts(found: list[Detection], late: float = 0.0) -> None:
    assert [event.label for event in found] == ["loud"] * len(BURSTS)
    for event, (onset, offset) in zip(found, BURSTS, strict=True):
        assert (event.onset, event.offset) == pytest.approx((onset + late, offset + late), abs=0.05)


def sound(name: str, rate: int, channels: int = 1, **options: str) -> Callable[[Path], None]:
    return lambda folder: soundfile.write(folder / name, bursts(rate, channels), rate, **options)


def media(name: str, channels: int = 1, **options) -> Callable[[Path], None]:
    return lambda folder: write_media(folder / name, bursts(16000, channels), 16000, **options)


GOOD = {
    "8k.wav": sound("8k.wav", 8000),
    "192k.flac": sound("192k.flac", 192000),
    "44k.ogg": sound("44k.ogg", 44100, 2),
    "six.wav": sound("six.wav", 16000, 6, subtype="FLOAT"),
    "a.mp3": sound("a.mp3", 16000),
    "a.m4a": media("a.m4a", 2),
    "six.m4a": media("six.m4a", 6),
    "a.mp4": media("a.mp4", video=True),
    "a.webm": media("a.webm", codec="libopus"),
    "a.mkv": media("a.mkv", video=True),
    "it's 100 % odd.mp4": media("it's 100 % odd.mp4"),
}


@pytest.mark.parametrize("name", GOOD)
def test_events_are_at_their_times_whatever_the_format(name: str, tmp_path: Path) -> None:
    GOOD[name](tmp_path)
    assert_bursts(hear(tmp_path / name))


def test_a_track_that_begins_late_keeps_the_videos_times(tmp_path: Path) -> None:
    write_media(tmp_path / "late.mkv", bursts(16000), 16000, video=True, delay=1.5)
    assert_bursts(hear(tmp_path / "late.mkv"), late=1.5)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
    soundfile.write(path, samples, rate, subtype="FLOAT")


def with_nan() -> np.ndarray:
    samples = bursts(16000)
    samples[40000] = np.nan
    return samples


BAD = {
    "silent film.mp4": (lambda path: write_media(path, None, 16000, video=True), "has no audio track, only video"),
    "cut.mp4": (lambda path: truncated(write_media(path, bursts(16000), 16000)), "cannot be decoded as audio"),
    "cut at its end.mp4": (
        lambda path: truncated(write_media(path, bursts(16000), 16000, options={"movflags": "faststart"})),
        "cannot be decoded as audio after|cut short, ",
    ),
    "cut.wav": (lambda path: (write(path, bursts(16000)), truncated(path)), "cut short"),
    "text.wav": (lambda path: path.write_text("these are words\n" * 99, encoding="utf-8"), "cannot be decoded"),
    "text.mp4": (lambda path: path.write_text("these are words\n" * 99, encoding="utf-8"), "cannot be decoded"),
    "list.m3u8": (
        lambda path: path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n", encoding="utf-8"),
        "cannot be decoded",
    ),
    "empty.wav": (lambda path: path.write_bytes(b""), "is an empty file"),
    "none.wav": (lambda path: write(path, np.zeros(0, np.float32)), "holds no samples"),
    "nan.wav": (lambda path: write(path, with_nan()), r"holds NaN or infinite samples, .* 40000 samples behind 0\.0"),
    "folder.wav": (lambda path: path.mkdir(), "is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_heard_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    make, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=words) as caught:
        hear(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.wav: no such file"):
        hear(tmp_path / "nowhere.wav")


def test_five_milliseconds_are_one_line_of_a_real_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write(tmp_path / "short.wav", np.zeros(80, np.float32))
    with pytest.raises(ValueError, match=r"short.wav: the clip has 80 samples, too few for one audio frame"):
        Detector(tiny_checkpoint, device="cpu").detect(tmp_path / "short.wav")


@pytest.mark.slow
def test_a_day_long_file_is_heard_in_bounded_memory(tmp_path: Path) -> None:
    """24 h of 16 kHz: a sparse file, almost all of it a hole, with a burst in its last minute."""
    path, rate, seconds = tmp_path / "day.wav", 16000, 24 * 3600
    tail = (np.sin(np.arange(20 * rate)) * 9000).astype("<i2")
    size = seconds * rate * 2
    header = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16) + b"data" + struct.pack("<I", size)
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + size - 40 * rate * 2)
        file.write(tail.tobytes())
        file.truncate(len(header) + size)
    process, seen = psutil.Process(), []

    def watch(heard: float) -> None:
        if heard > 600 and int(heard) % 97 == 0:
            seen.append(process.memory_info().rss)

    answerer = LoudAnswerer()
    found = Detector(answerer=answerer).listen(path, progress=watch)
    assert found.duration == seconds and abs(answerer.asked - seconds / 9.7) < 4  # windows of 10 s that share 0.3
    [event] = found.events
    assert (event.onset, event.offset) == pytest.approx((seconds - 40, seconds - 20), abs=0.02)
    assert len(seen) > 20 and max(seen) - seen[0] < 50 << 20


class Server:
    """An address that sends `body`, then keeps silent or closes."""

    def __init__(self, body: bytes, stays: bool) -> None:
        self.over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "audio/aac")
                if not stays:  # else its end is taken for a loss
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                if stays:
                    outer.over.wait(30)

            def log_message(self, *words: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/live.aac"

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[bytes, bool], str]]:
    servers: list[Server] = []

    def start(body: bytes, stays: bool) -> str:
        servers.append(Server(body, stays))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def aac(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_media(tmp_path_factory.mktemp("aac") / "a.aac", bursts(16000), 16000).read_bytes()


def test_a_live_stream_has_the_date_of_its_start_and_ends(serve, aac: bytes) -> None:
    found = Detector(answerer=LoudAnswerer()).listen(serve(aac, False), timeout_s=10)
    assert_bursts(list(found.events), late=1024 / 16000)  # a raw AAC stream does not say what its encoder puts in front
    assert found.problem is None and found.start is not None and found.start.tzinfo is not None
    assert found.wall_clock(1.0) is not None and found.duration == pytest.approx(SECONDS, abs=0.1)


def test_a_live_stream_that_falls_silent_gives_what_was_heard_and_says_so(serve, aac: bytes) -> None:
    url, begun = serve(aac, True), time.monotonic()
    found = Detector(answerer=LoudAnswerer()).listen(url, timeout_s=1.5)
    assert time.monotonic() - begun < 15
    assert [event.label for event in found.events] == ["loud"] * len(BURSTS)
    assert found.problem and found.problem.startswith(url) and "does not answer within 1.5 s after 2" in found.problem


def test_a_live_stream_that_the_user_stops_gives_what_was_heard(serve, aac: bytes) -> None:
    def stop(seconds: float) -> None:
        if seconds > 15:
            raise KeyboardInterrupt

    found = Detector(answerer=LoudAnswerer()).listen(serve(aac, True), timeout_s=10, progress=stop)
    assert len(found.events) == 2 and found.problem is None and found.duration == pytest.approx(15, abs=0.1)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_an_address_that_never_answers_is_given_up(scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises(ValueError, match="does not answer within 1 s; check the address"):
            open_source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/cam", timeout_s=1.0)
        assert time.monotonic() - begun < 10


def test_an_address_where_nobody_is_and_one_with_words_are_named(serve) -> None:
    with pytest.raises(ValueError, match="cannot be read .*Connection refused"):
        open_source("http://127.0.0.1:9/cam", timeout_s=2)
    with pytest.raises(ValueError, match="cannot be read"):
        open_source(serve(b"<html>these are words</html>" * 99, False), timeout_s=5)


def test_arrays_of_any_kind(tmp_path: Path) -> None:
    detector, samples = Detector(answerer=LoudAnswerer()), bursts(16000)
    assert_bursts(detector.detect(samples))
    assert_bursts(detector.detect((samples[:, 0] * 32767).astype(np.int16)))
    assert_bursts(detector.detect(((samples + 1) * 127.5).round().astype(np.uint8)))
    assert_bursts(detector.detect(bursts(44100, 2).astype(np.float64), 44100))
    with pytest.raises(ValueError, match=r"a chunk of audio is shape \(3, 2, 1\)"):
        detector.detect(np.zeros((3, 2, 1)))
    buffer = io.BytesIO()
    with pytest.raises(TypeError):
        detector.detect(buffer)  # type: ignore[arg-type]
