"""A folder of `timepro init-model` reads and answers the same in vLLM's chat, its token API, and `timepro.load`."""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from rollout.auth import TOKEN_VARIABLE
from rollout.checkpoint_scores import answers_of_worker, worker_settings
from rollout.client import RolloutPool
from rollout.detection import VllmBackend
from rollout.serving import serving
from rollout.worker import SERVED_NAME, Worker, serve_line
from timepro.checks.limits import ModelLimits
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.sounds import SOUNDS
from timepro.families import family_of
from timepro.inference.answering import InProcess, ModelAnswerer
from timepro.inference.detector import Detector
from timepro.inference.model import Model, load
from timepro.init_model import TimestampSettings, init_model
from timepro.system.network import free_port
from timepro.tasks import Sample, find_task
from timepro.tasks.samples import samples_of, tokenizer_texts
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TinyModelConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS, TOKENS = (1.0, 2.3), 16


@pytest.fixture(scope="module", params=["qwen2_5_omni", "qwen2_audio"])
def folder(request, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp(request.param)
    tiny = TinyModelConfig(
        family=request.param, hidden_size=64, heads=2, key_value_heads=1, feed_forward=96, encoder_width=32,
        encoder_layers=1, encoder_heads=2, encoder_feed_forward=48,
    )  # fmt: skip
    build_tiny_checkpoint(work / "published", tiny, SOUNDS, tokenizer_texts(), as_published=True)
    settings = TimestampSettings() if request.param == "qwen2_5_omni" else TimestampSettings(style="factorised")
    init_model(work / "published", work / "model", settings, say=lambda line: None)
    return work / "model"


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    work = tmp_path_factory.mktemp("audio")
    clips = []
    for number, seconds in enumerate(SECONDS):
        noise = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
        soundfile.write(work / f"{number}.wav", noise.astype(np.float32), 16000)
        clips.append(Clip(str(number), work / f"{number}.wav", seconds, (ManifestEvent(0.2, 0.6, "siren"),)))
    return samples_of(clips, "sed")


@dataclass
class Server:
    """What serves the folder: a rollout worker with its pool, or the line that a run prints for its users."""

    url: str
    name: str
    headers: dict[str, str]
    pool: RolloutPool | None


@pytest.fixture(scope="module")
def server(folder: Path, samples: list[Sample], tmp_path_factory) -> Iterator[Server]:
    """A worker for one family and the printed line for the other: each family's chat is asked, each way is run."""
    settings = worker_settings(samples, ModelLimits.of_checkpoint(folder), TOKENS)
    if family_of(folder).name == "qwen2_5_omni":
        with serving(folder, [samples[0].audio.parent], settings) as pool:
            yield Server(pool.urls[0], SERVED_NAME, pool._headers, pool)
        return
    port, log = free_port("127.0.0.1"), tmp_path_factory.mktemp("logs") / "vllm.log"
    line = f"exec env {serve_line(settings, folder)} --host 127.0.0.1 --port {port}"
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    worker = Worker("line", ["bash", "-c", line], environment | {TOKEN_VARIABLE: ""}, f"http://127.0.0.1:{port}", log)
    try:
        worker.wait_ready(500)
        yield Server(worker.url, str(folder), {}, None)
    finally:
        worker.end()


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def chat(server: Server, sample: Sample) -> dict:
    """What an OpenAI client sends: the clip as base64 in an `input_audio` part."""
    clip = {"data": base64.b64encode(sample.audio.read_bytes()).decode(), "format": "wav"}
    content = [{"type": "input_audio", "input_audio": clip}, {"type": "text", "text": sample.question}]
    body = {
        "model": server.name, "messages": [{"role": "user", "content": content}], "temperature": 0,
        "max_tokens": TOKENS, "return_token_ids": True, "skip_special_tokens": False,
    }  # fmt: skip
    reply = requests.post(f"{server.url}/v1/chat/completions", json=body, headers=server.headers, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_prompt_is_the_same_token_by_token(
    folder: Path, server: Server, model: Model, samples: list[Sample]
) -> None:
    from transformers import AutoProcessor

    published = AutoProcessor.from_pretrained(folder)
    for sample, seconds in zip(samples, SECONDS, strict=True):
        content = [{"type": "audio", "audio": "clip"}, {"type": "text", "text": sample.question}]
        text = published.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        unexpanded = model.processor.prompt_ids(sample.question)
        assert published.tokenizer(text, add_special_tokens=False).input_ids == unexpanded
        prompt = model.prompt_ids(sample.audio, sample.question)
        frames = round(25 * seconds)
        assert abs(prompt.count(model.processor.audio_token_id) - frames) <= 1
        assert len(prompt) - len(unexpanded) > 2 * frames - 4  # the timestamps are there
        assert chat(server, sample)["prompt_token_ids"] == prompt


def test_the_greedy_answer_is_the_same(folder: Path, server: Server, model: Model, samples: list[Sample]) -> None:
    texts = [model.answer(sample.audio, task="sed", max_tokens=TOKENS).text for sample in samples]
    for sample, text in zip(samples, texts, strict=True):
        assert sample.question == find_task("sed").question()
        assert model.processor.answer_text(chat(server, sample)["choices"][0]["token_ids"]) == text
    if server.pool is None:
        return
    options = argparse.Namespace(checkpoint=folder, max_tokens=TOKENS, samples=2, temperature=1.0)
    found = answers_of_worker(server.pool, options, samples)
    assert found.greedy == texts
    assert found.drawn is not None and [len(drawn) for drawn in found.drawn] == [2, 2]
    assert len({text for drawn in found.drawn for text in drawn}) > 1


def test_detection_is_the_same_by_a_server_and_in_this_process(server: Server, model: Model) -> None:
    """Tokens and their log-probabilities window by window, and the events of a stream that is longer than a window."""
    noise = np.random.default_rng(9).normal(0, 0.1, 5 * 16000).astype(np.float32)
    question = model.question(task="sed")
    token = server.headers.get("Authorization", "").removeprefix("Bearer ") or None
    here, there = InProcess(model), VllmBackend(server.url, token)
    windows = [noise[:32000], noise[16000:40000]]
    one, other = (backend.write(windows, question, 1, 0.0, TOKENS) for backend in (here, there))
    for [mine], [served] in zip(one, other, strict=True):
        assert mine.token_ids == served.token_ids
        assert served.logprobs == pytest.approx(mine.logprobs, abs=1e-3)
    events = [
        Detector(answerer=ModelAnswerer(model.processor, backend, question, 2.0, max_tokens=TOKENS)).detect(noise)
        for backend in (here, there)
    ]
    assert [event.event for event in events[0]] == [event.event for event in events[1]]
