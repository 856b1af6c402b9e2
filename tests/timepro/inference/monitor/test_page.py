"""The live page: who may see it, and what it does in a browser, on phone and desk, dark and light."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile

from browser import Browser, chromium
from timepro.inference.monitor.history import History
from timepro.inference.monitor.page.server import PageServer, Shown

LABELS = ("glass_breaking", "dog_bark", "</b><script>x</script>")
STATUS: dict[str, Any] = {
    "monitor": "hall", "source": "rtsp://cam/1", "stream": "on", "lost_since": 0.0, "reason": "", "level_db": -31.0,
    "background_db": -62.0, "behind_s": 0.4, "asked": 10, "silent": 90, "saved": 0.9, "heard_s": 7200.0,
    "asking_s": 72.0, "open": [], "now_age_s": 1.0,
    "sinks": [{"name": "webhook-desk", "waiting": 3, "trouble": "desk does not answer"}],
}  # fmt: skip


def event(number: int, age_s: float, label: str = LABELS[0], alerted: bool = True, clip: str = "") -> dict[str, Any]:
    onset = time.time() - age_s
    return {
        "event": f"e{number}", "label": label, "onset": onset, "offset": onset + 2.5, "confidence": 0.87,
        "alerted": alerted, "clip": clip,
    }  # fmt: skip


class Page:
    """A served page whose status the test sets."""

    def __init__(self, folder: Path, token: str = "") -> None:
        self.folder, self.status = folder, dict(STATUS)
        self.now: list[dict[str, Any]] = []
        self.history = History(folder / "history.jsonl", 6.0)
        clip = folder / "clips" / "20261126" / "a.flac"
        clip.parent.mkdir(parents=True)
        soundfile.write(clip, np.random.default_rng(0).normal(0, 0.1, 3 * 16000), 16000)
        shown = Shown(self._status, self.history, folder / "clips", LABELS, 6.0, lambda label: 0.5)
        self.server = PageServer(shown, "127.0.0.1", 0, token)

    def _status(self) -> dict[str, Any]:
        return self.status | {"now": [dict(one) for one in self.now], "time": time.time()}

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.server.address + path, timeout=30, allow_redirects=False, **more)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page(tmp_path)
    with made.server:
        yield made


def test_without_a_token_only_this_machines_own_names_lead_in(page: Page) -> None:
    assert page.get("").status_code == 200
    assert page.get("", headers={"Host": "localhost:1"}).status_code == 200
    assert page.get("", headers={"Host": "evil.example"}).status_code == 403
    assert "default-src 'none'" in page.get("").headers["Content-Security-Policy"]


def test_a_token_is_asked_for_everywhere_and_kept_in_a_cookie(tmp_path: Path) -> None:
    made = Page(tmp_path, "0123456789abcdef")
    with made.server:
        for path in ("", "page.js", "api/status", "api/events", "clips/20261126/a.flac"):
            assert made.get(path).status_code == 401
            assert made.get(path, headers={"Authorization": "Bearer 0123456789abcdeX"}).status_code == 401
            assert made.get(path, headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200
        answer = made.get("?token=0123456789abcdef")
        assert answer.status_code == 303 and "token=" not in answer.headers["Location"]
        assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Strict" in answer.headers["Set-Cookie"]
        assert made.get("", cookies=dict(answer.cookies)).status_code == 200


def test_clips_come_as_sound_and_as_picture_and_nothing_else_does(page: Page) -> None:
    (page.folder / "secret.flac").write_bytes(b"x")
    assert page.get("clips/20261126/a.flac").headers["Content-Type"] == "audio/flac"
    assert page.get("clips/20261126/a.flac", headers={"Range": "bytes=0-9"}).status_code == 206
    picture = page.get("clips/20261126/a.jpg")
    assert picture.headers["Content-Type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"
    for path in ("clips/20261126/b.flac", "clips/../secret.flac", "clips/%2e%2e/secret.flac", "clips/20261126/a.wav",
                 "clips/20261126/%2e%2e/%2e%2e/secret.flac", "history.jsonl", "clips//etc/passwd"):  # fmt: skip
        assert page.get(path).status_code in (403, 404), path


def test_events_of_the_last_hours_stay_over_a_restart(page: Page) -> None:
    page.history.note(event(1, 7 * 3600))
    page.history.note(event(2, 3600))
    page.history.note(event(2, 3600) | {"offset": None})
    page.history.note(event(2, 3600, clip="20261126/a.flac"))
    page.history.note(event(3, 60, clip="20261126/gone.flac"))
    with (page.folder / "history.jsonl").open("a") as out:
        out.write('{"event": "e4", "la')
    again = History(page.folder / "history.jsonl", 6.0)
    assert [one["event"] for one in again.since(time.time() - 6 * 3600)] == ["e2", "e3"]
    shown = page.get("api/events").json()["events"]
    assert [one["clip"] for one in shown] == ["20261126/a.flac", ""]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("needs Chromium")
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_the_page_shows_now_the_timeline_and_alerts_with_sound(
    page: Page, browser: Browser, width: int, dark: bool
) -> None:
    browser.open("about:blank")  # else the page of the test before asks on for what is gone
    browser.errors.clear()
    browser.requests.clear()
    page.now = [
        {"label": LABELS[0], "confidence": 0.91, "onset": 1.0},
        {"label": LABELS[1], "confidence": 0.2, "onset": 1.0},
    ]
    page.history.note(event(1, 7000, LABELS[1], alerted=False))
    for number in range(2, 30):
        page.history.note(event(number, 6000 - 100 * number, LABELS[number % 3]))
    page.history.note(event(30, 60, clip="20261126/a.flac"))
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", features=[scheme])
    browser.open(page.server.address)
    browser.until("document.querySelectorAll('#alerts li').length === 20 && !!document.querySelector('.pill.on')")
    assert browser.get("document.querySelector('#alerts li b').textContent") == "glass breaking"
    assert browser.get("document.querySelectorAll('#now li.below').length") == 1
    assert browser.get("document.getElementById('now').textContent").startswith("glass breaking0.91")
    assert browser.get("document.querySelectorAll('.track').length") == 3
    assert browser.get("document.querySelectorAll('.track .quiet').length") == 1
    assert "90.0 % of 100 windows" in browser.get("document.getElementById('work').textContent")
    assert browser.get("document.querySelector('.trouble').textContent") == "desk does not answer; 3 wait"
    assert browser.get("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
    background = browser.get("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
    browser.until("(i => i.complete && i.naturalWidth > 0)(document.querySelector('#alerts img'))")
    browser.get("document.querySelector('.track button:last-child').focus()")  # by keyboard: the newest bar plays
    browser.press("Enter", 13, "\r")
    browser.until("document.querySelector('#alerts .chosen audio')?.currentTime > 0")
    browser.get("document.querySelector('#alerts .chosen audio').pause()")
    choose = "w.value = 'dog_bark'; w.dispatchEvent(new Event('change'));"
    browser.get(f"(w => {{ {choose} }})(document.getElementById('which'))")
    assert set(browser.get("[...document.querySelectorAll('#alerts b')].map(b => b.textContent)")) == {"dog bark"}
    page.status |= {"stream": "lost", "lost_since": time.time(), "reason": "cable cut"}
    browser.until("document.querySelector('.pill.lost')?.textContent.includes('cable cut')")
    assert browser.get("document.title") == "LOST: hall"
    assert browser.errors == []
    assert all(one.startswith((page.server.address, "about:", "data:")) for one in browser.requests)


def test_a_monitor_that_is_gone_is_told(tmp_path: Path, browser: Browser) -> None:
    made = Page(tmp_path)
    with made.server:
        browser.open(made.server.address)
        browser.until("!!document.querySelector('.pill.on')")
    browser.until("document.querySelector('.pill.lost')?.textContent === 'the monitor does not answer'")
