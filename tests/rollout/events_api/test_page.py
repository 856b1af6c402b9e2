"""The page of `timepro serve` in a headless Chromium, a scripted listener behind the server."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from browser import Browser, chromium
from events_server import EventsServer, ScriptedListener
from rollout.events_api.models import FoundEvent

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")

EVENTS = [
    FoundEvent(onset=0.5, offset=1.25, label="dog_bark", confidence=0.9),
    FoundEvent(onset=3.0, offset=3.5, label="siren", confidence=0.2, kept=False),
    FoundEvent(onset=4.0, offset=6.0, label="siren", confidence=0.8),
    FoundEvent(onset=4.5, offset=4.6, label="</i><b>odd & label", confidence=None),
]
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def server() -> Iterator[EventsServer]:
    running = EventsServer(ScriptedListener(EVENTS), queue=1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "a clip.flac"
    samples = 0.3 * np.sin(2 * np.pi * 500 * np.arange(8 * 16000) / 16000)
    soundfile.write(path, samples.astype(np.float32), 16000)
    return path


@pytest.fixture
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(Path(profile), *MICROPHONE)
        yield running
        running.close()


def ask(browser: Browser, server: EventsServer, recording: Path, timeout_s: float = 15.0) -> None:
    browser.open(server.url)
    browser.until("document.querySelector('#model').textContent === 'scripted'")
    browser.give_file("#file", recording)
    browser.until("!document.querySelector('#find').disabled")
    browser.get("document.querySelector('#find').click()")
    done = "!document.querySelector('#result').hidden && document.querySelectorAll('.track button').length > 0"
    browser.until(done, timeout_s)


def overflow(browser: Browser) -> int:
    return browser.get("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (1280, 900)])
def test_a_recording_is_seen_with_lanes_of_events(
    browser: Browser, server: EventsServer, recording: Path, width: int, height: int, dark: bool
) -> None:
    browser.size(width, height, dark)
    ask(browser, server, recording)
    assert browser.errors == []
    assert all(url.startswith((server.url, "blob:", "data:", "about:")) for url in browser.requests), browser.requests
    assert overflow(browser) <= 0
    lanes = browser.get("[...document.querySelectorAll('.lane > span')].map((lane) => lane.textContent)")
    assert lanes == ["</i><b>odd & label", "dog_bark", "siren"]
    boxes = browser.get(
        "[...document.querySelectorAll('.track button')].map((b) => [b.title, b.offsetLeft, b.offsetWidth])"
    )
    inner = browser.get("document.querySelector('#inner').clientWidth")
    assert [title for title, *_ in boxes if "siren" in title] == ["siren, 0:04.00 to 0:06.00, 80 %"]
    left, wide = next(box[1:] for box in boxes if "siren" in box[0])
    assert left == pytest.approx(inner * 4 / 8, abs=2) and wide == pytest.approx(inner * 2 / 8, abs=2)
    # The tone's row is the brightest of the picture, and it is low.
    browser.until("document.querySelector('#picture').width === 801")
    row = browser.get(
        "(() => { const c = document.querySelector('#picture'); const p = c.getContext('2d')"
        ".getImageData(400, 0, 1, c.height).data; const light = (i) => p[4 * i] + p[4 * i + 1] + p[4 * i + 2];"
        "return [...Array(c.height).keys()].reduce((best, i) => (light(i) > light(best) ? i : best), 0); })()"
    )
    assert 70 < row < 85
    back = browser.get("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 60) == dark
    assert _least_contrast(browser) >= 4.5


CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const node of document.querySelectorAll('main *, footer *')) {
    const written = [...node.childNodes].some((inner) => inner.nodeType === 3 && inner.textContent.trim());
    if (!written || node.disabled || !node.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
})()"""


def _least_contrast(browser: Browser) -> float:
    """WCAG contrast of whatever has text of its own, against the nearest painted background."""
    return browser.get(CONTRAST)


def test_clicking_an_event_plays_from_it(browser: Browser, server: EventsServer, recording: Path) -> None:
    ask(browser, server, recording)
    browser.until("document.querySelector('#player').readyState >= 1")
    browser.get("document.querySelector('.track button[title^=siren]').click()")
    browser.until("!document.querySelector('#player').paused && document.querySelector('#player').currentTime > 4.1")
    assert browser.get("document.querySelector('#player').currentTime") < 6
    browser.get("document.querySelector('#play').click()")
    browser.until("document.querySelector('#player').paused")
    assert browser.get("document.querySelector('#clock').textContent").startswith("0:04.")
    assert browser.get("parseFloat(document.querySelector('#now').style.left)") > 50
    assert browser.errors == []


def test_all_of_it_by_keyboard(browser: Browser, server: EventsServer, recording: Path) -> None:
    browser.open(server.url)
    browser.until("document.querySelector('#model').textContent === 'scripted'")
    browser.give_file("#file", recording)
    reached = set()
    for _ in range(30):
        browser.press("Tab", 9)
        reached.add(name := browser.get("document.activeElement.id"))
        if name == "find":
            break
    assert {"file", "record", "mode", "samples", "find"} <= reached
    browser.press("Enter", 13, "\r")
    browser.until("document.querySelectorAll('.track button').length > 0")
    for _ in range(30):
        browser.press("Tab", 9)
        if browser.get("document.activeElement.matches('.track button')"):
            break
    titles = []
    for key, code in (("Home", 36), ("ArrowRight", 39), ("ArrowRight", 39), ("ArrowRight", 39), ("ArrowLeft", 37)):
        browser.press(key, code)
        titles.append(browser.get("document.activeElement.title").partition(",")[0])
    assert titles == ["dog_bark", "siren", "</i><b>odd & label", "</i><b>odd & label", "siren"]
    browser.press("Enter", 13, "\r")
    browser.until("!document.querySelector('#player').paused && document.querySelector('#player').currentTime >= 4")
    browser.get("document.querySelector('#timeline').focus()")
    browser.press(" ", 32, " ")
    browser.until("document.querySelector('#player').paused")
    browser.press("p", 80, "p")
    browser.until("Math.abs(document.querySelector('#player').currentTime - 0.5) < 0.4")
    browser.press("+", 187, "+")
    assert browser.get("document.querySelector('#inner').style.width") == "200%"
    assert browser.errors == []


def test_less_certain_events_are_shown_on_demand_and_downloaded_as_shown(
    browser: Browser, server: EventsServer, recording: Path, tmp_path: Path
) -> None:
    ask(browser, server, recording)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.get("document.querySelector('#download').click()")
    table = tmp_path / "a clip.tsv"
    server.until(table.is_file)
    assert [line.split("\t")[1] for line in table.read_text().splitlines()[1:]] == ["0.500", "4.000", "4.500"]
    browser.get("document.querySelector('#below').click()")
    assert browser.get("document.querySelectorAll('.track button.below').length") == 1
    browser.get("document.querySelector('#format').value = 'jams'; document.querySelector('#download').click()")
    jams = tmp_path / "a clip.jams"
    server.until(jams.is_file)
    assert len(json.loads(jams.read_text())["annotations"][0]["data"]) == 4
    assert browser.errors == []


def test_the_microphone_becomes_a_recording(browser: Browser, server: EventsServer) -> None:
    browser.open(server.url)
    browser.until("document.querySelector('#model').textContent === 'scripted'")
    browser.get("document.querySelector('#record').click()")
    browser.until("document.querySelector('#chosen').textContent.startsWith('recording, 0:02')")
    browser.get("document.querySelector('#record').click()")
    browser.until("document.querySelector('#chosen').textContent.endsWith('MiB')")
    browser.get("document.querySelector('#find').click()")
    browser.until("!document.querySelector('#result').hidden")
    server.until(lambda: server.listener.heard[-1].startswith(b"RIFF"))
    sent = Path(tempfile.mkdtemp()) / "sent.wav"
    sent.write_bytes(server.listener.heard[-1])
    samples, rate = soundfile.read(sent)
    assert 1.9 < len(samples) / rate < 8 and np.abs(samples).max() > 0.01  # Chromium's fake device beeps
    assert browser.errors == []


def test_what_the_server_says_against_it_is_shown(browser: Browser, server: EventsServer, recording: Path) -> None:
    server.listener.fails_with = ValueError("the file holds no audio")
    try:
        browser.open(server.url)
        browser.until("document.querySelector('#model').textContent === 'scripted'")
        browser.give_file("#file", recording)
        browser.get("document.querySelector('#find').click()")
        browser.until("!document.querySelector('#message').hidden")
        assert "the file holds no audio" in browser.get("document.querySelector('#message').textContent")
        assert browser.get("document.querySelector('#result').hidden")
    finally:
        server.listener.fails_with = None


def test_stop_ends_the_work(browser: Browser, server: EventsServer, recording: Path) -> None:
    server.listener.go_on.clear()
    try:
        browser.open(server.url)
        browser.until("document.querySelector('#model').textContent === 'scripted'")
        browser.give_file("#file", recording)
        browser.get("document.querySelector('#find').click()")
        browser.until("document.querySelector('#status').textContent.startsWith('Listening: 0:02 of 0:08')")
        assert browser.get("document.querySelector('#progress').value") == 0.25
        browser.get("document.querySelector('#stop').click()")
        browser.until("document.querySelector('#status').textContent === 'Stopped.'")
        server.until(lambda: server.listener.ended[-1] == "broken off")
        assert browser.get("document.querySelector('#message').hidden")
    finally:
        server.listener.go_on.set()


def test_a_token_is_asked_for_and_kept_in_the_tab_alone(browser: Browser, recording: Path) -> None:
    server = EventsServer(ScriptedListener(EVENTS), token="a secret")
    try:
        browser.open(server.url)
        browser.until("!document.querySelector('#unlock').hidden")
        assert browser.get("document.activeElement.id") == "token"
        for word in ("wrong", "a secret"):
            browser.get(f"document.querySelector('#token').value = '{word}'")
            browser.press("Enter", 13, "\r")
            if word == "wrong":
                browser.until("document.querySelector('#message').textContent.includes('token')")
        browser.until("document.querySelector('#model').textContent === 'scripted'")
        browser.errors.clear()  # Chromium notes a 401 as an error
        browser.give_file("#file", recording)
        browser.get("document.querySelector('#find').click()")
        browser.until("!document.querySelector('#result').hidden")
        assert browser.errors == [] and not any("secret" in url for url in browser.requests)
        assert browser.get("localStorage.length + document.cookie.length") == 0
    finally:
        server.close()


@pytest.mark.slow
def test_an_hour_long_recording_keeps_the_page_small(browser: Browser, tmp_path: Path) -> None:
    many = [FoundEvent(onset=i * 7.0, offset=i * 7.0 + 1, label=f"label {i % 5}", confidence=0.9) for i in range(500)]
    server = EventsServer(ScriptedListener(many, 3600.0))
    try:
        path = tmp_path / "hour.flac"
        soundfile.write(path, np.zeros(16000 * 3600, np.int16), 16000)
        ask(browser, server, path, 90.0)
        browser.until("document.querySelector('#picture').width > 1000")
        assert browser.get("document.querySelector('#picture').width") <= 4097
        assert "A column of the picture stands for" in browser.get("document.querySelector('#resolution').textContent")
        assert browser.get("document.querySelectorAll('#axis span').length") <= 60
        for _ in range(12):
            browser.get("document.querySelector('#in').click()")
        assert browser.get("document.querySelectorAll('#axis span').length") <= 401
        browser.get("document.querySelector('#after').click()")
        browser.until("document.querySelector('.track button[tabindex=\"0\"]').title.startsWith('label 1, 0:07.00')")
        box = "document.querySelector('#timeline')"
        x = browser.get(f"document.querySelector('.track button[tabindex=\"0\"]').offsetLeft - {box}.scrollLeft")
        assert 0 <= x <= browser.get(f"{box}.clientWidth")
        assert overflow(browser) <= 0 and browser.errors == []
    finally:
        server.close()
