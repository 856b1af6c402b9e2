"""`timepro serve` as its users start it: one real vLLM server, asked for events, in chat, in a browser, and ended."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from browser import Browser, chromium
from timepro.data.sounds import SOUNDS
from timepro.inference.detector import Detector
from timepro.tasks import find_task
from timepro.tasks.samples import tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
START_S, SECONDS = 300.0, 15.0


@dataclass
class Served:
    """A server, as the command started it."""

    folder: Path
    process: subprocess.Popen[str]
    url: str
    token: str
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Longer than two windows, stereo, at another rate than the model's."""
    path = tmp_path_factory.mktemp("audio") / "night.flac"
    noise = np.random.default_rng(3).normal(0, 0.1, (round(22050 * SECONDS), 2))
    soundfile.write(path, noise.astype(np.float32), 22050)
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    work = tmp_path_factory.mktemp("serve")
    folder, token, log = work / "model", work / "token", work / "server.log"
    tiny = TinyModelConfig(
        hidden_size=64, heads=2, key_value_heads=1, feed_forward=96, encoder_width=32, encoder_layers=1,
        encoder_heads=2, encoder_feed_forward=48,
    )  # fmt: skip
    build_tiny_checkpoint(folder, tiny, SOUNDS, tokenizer_texts())
    command = [sys.executable, "-m", "timepro.cli", "serve", str(folder), "--port", "0", "--token-file", str(token)]
    said = work / "said"
    with said.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([*command, "--log", str(log)], stderr=out, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while "ready: " not in said.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline, said.read_text(encoding="utf-8")
            time.sleep(0.5)
        url = said.read_text(encoding="utf-8").partition("ready: ")[2].split()[0]
        yield Served(folder, process, url, token.read_text(encoding="utf-8").strip(), log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def ask(served: Served, recording: Path, **fields: object) -> dict:
    with recording.open("rb") as file:
        reply = requests.post(
            f"{served.url}/v1/events", files={"file": file}, data=fields, headers=served.headers, timeout=300
        )
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_events_are_those_of_the_detector_in_this_process(served: Served, recording: Path) -> None:
    asked = {"query": "glass breaking", "threshold": 0.0}  # whose words name what an untrained model leaves nameless
    found = ask(served, recording, all=True, **asked)
    own = Detector(served.folder, device="cpu", **asked).detect(recording)
    times = [(event["onset"], event["offset"], event["label"]) for event in found["events"] if event["kept"]]
    assert own and times == [(round(e.onset, 3), round(e.offset, 3), e.label) for e in own]
    assert found["duration"] == pytest.approx(SECONDS, abs=0.01) and found["confidence_kind"] == "probability"


def test_drawn_answers_give_events_with_their_share(served: Served, recording: Path) -> None:
    found = ask(served, recording, query="a bell", samples=8, all=True, spectrogram=True, window=5)
    assert found["confidence_kind"] == "share" and found["events"]
    assert all(0 < e["confidence"] <= 1 and 0 <= e["onset"] < e["offset"] <= SECONDS for e in found["events"])
    assert base64.b64decode(found["spectrogram"]["png"]).startswith(b"\x89PNG")


def test_chat_takes_audio_and_opens_nothing_for_those_who_ask(served: Served, recording: Path) -> None:
    clip = recording.parent / "clip.wav"
    soundfile.write(clip, np.zeros(32000, np.float32), 16000)

    def chat(part: dict) -> requests.Response:
        content = [part, {"type": "text", "text": find_task("sed").asks}]
        body = {"model": served.folder.name, "messages": [{"role": "user", "content": content}], "max_tokens": 8}
        return requests.post(f"{served.url}/v1/chat/completions", json=body, headers=served.headers, timeout=120)

    data = {"data": base64.b64encode(clip.read_bytes()).decode(), "format": "wav"}
    answer = chat({"type": "input_audio", "input_audio": data})
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["role"] == "assistant"
    for address in (clip.as_uri(), "http://127.0.0.1:1/clip.wav"):
        refused = chat({"type": "audio_url", "audio_url": {"url": address}})
        assert refused.status_code == 400 and "input_audio" in refused.text


def test_health_metrics_and_one_document(served: Served) -> None:
    assert requests.get(f"{served.url}/health", timeout=20).json() == {"status": "ok"}
    metrics = requests.get(f"{served.url}/metrics", headers=served.headers, timeout=20).text
    assert "timepro_events_requests_total" in metrics and "vllm:num_requests_running" in metrics
    paths = requests.get(f"{served.url}/openapi.json", timeout=20).json()["paths"]
    assert {"/v1/events", "/v1/chat/completions"} <= set(paths)
    assert "/static/" in requests.get(f"{served.url}/docs", timeout=20).text
    for path in ("/v1/events", "/v1/models", "/metrics", "/tokenize", "/version"):
        assert requests.get(served.url + path, timeout=20).status_code == 401
    for path in ("/pause", "/init_weight_transfer_engine", "/sleep"):  # a worker's, not this server's
        assert requests.post(served.url + path, headers=served.headers, timeout=20).status_code == 404


@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")
def test_the_page_finds_events(served: Served, recording: Path) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            browser.open(served.url)
            browser.until("!document.querySelector('#unlock').hidden")
            browser.get(f"document.querySelector('#token').value = '{served.token}'")
            browser.press("Enter", 13, "\r")
            browser.until(f"document.querySelector('#model').textContent === '{served.folder.name}'")
            browser.errors.clear()  # Chromium notes the 401 as an error
            browser.give_file("#file", recording)
            browser.get("document.querySelector('#find').click()")
            browser.until("!document.querySelector('#result').hidden", 120)
            browser.until("document.querySelector('#picture').width > 1000")
            assert browser.errors == []
        finally:
            browser.close()


def test_sigterm_ends_all_of_it_and_the_log_has_no_token(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{served.url}/health", timeout=5)
    assert served.token not in served.log.read_text(encoding="utf-8")
