"""A folder of `timepro init-model` answers the same by vLLM's chat API, its token API, and `timepro.load`."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from rollout.checkpoint_scores import answers_of_worker, worker_settings
from rollout.client import RolloutPool
from rollout.serving import serving
from rollout.worker import SERVED_NAME
from timepro.checks.limits import ModelLimits
from timepro.data.clips import Clip, ManifestEvent
from timepro.data.sounds import SOUNDS
from timepro.inference.model import Model, load
from timepro.init_model import TimestampSettings, init_model
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
    init_model(work / "published", work / "model", TimestampSettings(), say=lambda line: None)
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


@pytest.fixture(scope="module")
def pool(folder: Path, samples: list[Sample]) -> Iterator[RolloutPool]:
    settings = worker_settings(samples, ModelLimits.of_checkpoint(folder), TOKENS)
    with serving(folder, [samples[0].audio.parent], settings) as pool:
        yield pool


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def chat(pool: RolloutPool, sample: Sample) -> dict:
    """What an OpenAI client sends: the clip as base64 in an `input_audio` part."""
    clip = {"data": base64.b64encode(sample.audio.read_bytes()).decode(), "format": "wav"}
    content = [{"type": "input_audio", "input_audio": clip}, {"type": "text", "text": sample.question}]
    body = {
        "model": SERVED_NAME, "messages": [{"role": "user", "content": content}], "temperature": 0,
        "max_tokens": TOKENS, "return_token_ids": True, "skip_special_tokens": False,
    }  # fmt: skip
    reply = requests.post(f"{pool.urls[0]}/v1/chat/completions", json=body, headers=pool._headers, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_prompt_is_the_same_token_by_token(pool: RolloutPool, model: Model, samples: list[Sample]) -> None:
    for sample, seconds in zip(samples, SECONDS, strict=True):
        prompt = model.prompt_ids(sample.audio, sample.question)
        frames = round(25 * seconds)
        assert abs(prompt.count(model.processor.audio_token_id) - frames) <= 1
        assert len(prompt) > 2 * frames - 2  # the timestamps are there
        assert chat(pool, sample)["prompt_token_ids"] == prompt


def test_the_greedy_answer_is_the_same(folder: Path, pool: RolloutPool, model: Model, samples: list[Sample]) -> None:
    options = argparse.Namespace(checkpoint=folder, max_tokens=TOKENS, samples=2, temperature=1.0)
    found = answers_of_worker(pool, options, samples)
    assert found.drawn is not None and [len(texts) for texts in found.drawn] == [2, 2]
    for sample, text in zip(samples, found.greedy, strict=True):
        assert sample.question == find_task("sed").question()
        assert model.answer(sample.audio, task="sed", max_tokens=TOKENS).text == text
        choice = chat(pool, sample)["choices"][0]
        assert model.processor.answer_text(choice["token_ids"]) == text
    assert len(set(found.greedy)) > 1 or len(set(text for texts in found.drawn for text in texts)) > 1
