"""Similarity of captions gated by IoU, against a plain implementation, and with a real encoder's classes."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sentence_encoder import small_encoder
from timepro.events import Event, ParsedAnswer
from timepro.metrics.meaning import THRESHOLDS, load_encoder, similarity_at_iou

WORDS = ("a dog barks", "a dog is barking", "rain", "someone laughs", "")


def directions(texts: list[str]) -> np.ndarray:
    """An embedding that knows nothing of meaning: a fixed random direction for each text."""
    return np.stack([np.random.default_rng(len(text)).normal(0.5, size=8) * (1 + len(text)) for text in texts])


def plain(references, answers) -> dict[str, float]:
    """The definition, event by event."""
    found = {}
    for t in THRESHOLDS:
        clips = []
        for reference, answer in zip(references, answers, strict=True):
            estimated = answer.events if answer.ok else []
            if not reference and not estimated:
                clips.append(1.0 if answer.ok else 0.0)
                continue
            best = []
            for r in reference:
                value = 0.0
                for e in estimated:
                    shared = max(0.0, min(r.offset, e.offset) - max(r.onset, e.onset))
                    iou = shared / (max(r.offset, e.offset) - min(r.onset, e.onset)) if shared else 0.0
                    if iou >= t:
                        a, b = directions([r.label, e.label])
                        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
                        value = max(value, cosine)
                best.append(value)
            clips.append(sum(best) / len(best) if best else 0.0)
        found[f"similarity_at_{t}"] = sum(clips) / len(clips)
    return found


def drawn(rng: random.Random) -> list[Event]:
    starts = [rng.uniform(0, 2) for _ in range(rng.randint(0, 4))]
    return [Event(s, s + rng.uniform(1, 3), rng.choice(WORDS)) for s in starts]


def test_equal_to_a_plain_implementation_on_random_cases() -> None:
    rng = random.Random(0)
    values = set()
    for _ in range(60):
        n = rng.randint(1, 6)
        references = [drawn(rng) for _ in range(n)]
        answers = [ParsedAnswer(drawn(rng), rng.random() < 0.8) for _ in range(n)]
        found = similarity_at_iou(references, answers, directions)
        assert found == pytest.approx(plain(references, answers))
        values.add(tuple(found.values()))
    assert len(values) > 40


def test_by_hand() -> None:
    def axes(texts: list[str]) -> np.ndarray:
        return np.array([{"x": (2.0, 0.0), "y": (0.0, 1.0), "xy": (1.0, 1.0), "": (0.0, 0.0)}[text] for text in texts])

    def of(answer: ParsedAnswer, *reference: Event) -> list[float]:
        return list(similarity_at_iou([list(reference)], [answer], axes).values())

    right, other = Event(0, 1, "x"), Event(2, 4, "y")
    both = ParsedAnswer([Event(0, 1, "x"), Event(2, 3, "xy")], True)  # the second with an IoU of 0.5
    assert of(both, right, other) == pytest.approx([(1 + 0.5**0.5) / 2, (1 + 0.5**0.5) / 2, 0.5])
    assert of(ParsedAnswer([Event(0, 1, "y"), Event(0, 1, "x")], True), right) == [1, 1, 1]  # the best one counts
    assert of(ParsedAnswer([Event(0, 1, "")], True), right) == [0, 0, 0]  # an embedding without a direction
    assert of(ParsedAnswer([right], False), right) == of(ParsedAnswer([], True), right) == [0, 0, 0]
    assert of(ParsedAnswer([], True)) == [1, 1, 1]
    assert of(ParsedAnswer([], False)) == of(ParsedAnswer([right], True)) == [0, 0, 0]
    with pytest.raises(ValueError, match="1 references and 0 answers"):
        similarity_at_iou([[]], [], axes)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return small_encoder(tmp_path / "encoder")


def test_an_encoders_embeddings_are_the_mean_of_its_models_states(encoder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["a dog barks", "rain"]
    found = load_encoder(encoder)(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert vector == pytest.approx(states.mean(dim=0).numpy(), abs=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_loading_says_nothing_on_stdout(encoder: Path) -> None:
    code = (
        "import sys, pathlib; from timepro.metrics.meaning import load_encoder; load_encoder(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(encoder)],
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()


def test_what_is_no_encoder_is_named(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing is no sentence encoder: it has no modules\.json"):
        load_encoder(tmp_path / "nothing")
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")  # weights of another kind are not unpickled
    with pytest.raises(ValueError, match="cannot be loaded as a sentence encoder"):
        load_encoder(encoder)
