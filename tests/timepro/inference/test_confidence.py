"""Confidences: by the tokens that write an event, and by the sampled answers that hold it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from timepro.answers import parse_answer
from timepro.events import Event
from timepro.features import Processor
from timepro.inference.answering import InProcess, ModelAnswerer, token_texts
from timepro.inference.confidence import Written, by_probability, by_share
from timepro.inference.detections import Detection
from timepro.inference.generation import merged_embeds
from timepro.inference.model import Model, load


@pytest.mark.parametrize(
    ("pieces", "values", "wanted"),
    [
        (["<0.40>", "dog", "_bark", "<1.20>", "<2.00>", "siren", "<3.00>"], [0, 0, -4, 0, -1, -2, -3], [-1.0, -2.0]),
        (["dog", " 0.40", "-1", ".20", ";", " siren", " 2", ".00-3.00"], [-1, -1, -1, -1, -9, -2, -2, -2], [-1, -2]),
        (["Dog from ", "0.4 to 1.2, ", "siren from 2 to 3"], [-1, -2, -3], [-2, -2]),  # not as trained: the whole
        (["none"], [-1], []),
    ],
)
def test_a_probability_is_that_of_the_events_own_tokens(pieces: list[str], values: list[float], wanted: list) -> None:
    parsed = parse_answer("".join(pieces))
    found = by_probability(parsed, pieces, values)
    assert [event.event for event in found] == parsed.events
    assert [math.log(event.confidence or 0) for event in found] == pytest.approx(wanted)


def test_a_share_is_that_of_the_answers_with_a_matching_event() -> None:
    answers = [
        [Event(1.0, 2.0, "dog"), Event(1.05, 2.1, "dog")],  # twice in one answer counts once
        [Event(1.1, 2.05, "dog"), Event(5.0, 6.0, "siren")],
        [Event(0.95, 1.9, "dog")],
        [Event(1.0, 2.0, "cat")],
    ]
    assert by_share(answers) == [
        Detection(1.0, 2.0, "cat", 0.25),
        Detection(1.0, 2.0, "dog", 0.75),
        Detection(1.05, 2.1, "dog", 0.25),
        Detection(5.0, 6.0, "siren", 0.25),
    ]
    assert by_share([[], []]) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_sampled_event_counts_exactly_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = [
        [Event(a, a + rng.uniform(0.2, 3), str(rng.choice(["a", "b"]))) for a in rng.uniform(0, 5, rng.integers(0, 6))]
        for _ in range(8)
    ]
    found = by_share(answers)
    assert sum(round(event.confidence * 8) for event in found if event.confidence) == sum(map(len, answers))
    assert found == by_share(answers[::-1])


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Model:
    return load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)


def test_log_probabilities_are_those_of_the_model_with_the_answer_before_it(model: Model, noise: np.ndarray) -> None:
    question = model.question(task="sed")
    [answer] = model.written(noise, question, 1, 0.0, 12)
    embeds = model._embeds(noise, question)
    told = merged_embeds(model.processor, model.model, answer.token_ids, torch.zeros(0, embeds.shape[-1]))
    with torch.no_grad():
        logits = model.model(inputs_embeds=torch.cat([embeds, told], 1)).logits[0, embeds.shape[1] - 1 : -1].float()
    logits[:, list(model.processor.layout.banned_token_ids)] = -math.inf
    wanted = logits.log_softmax(-1)[range(len(answer.token_ids)), answer.token_ids]
    assert answer.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)
    assert answer.token_ids == logits.argmax(-1).tolist()


def test_events_are_named_or_left_out(model: Model) -> None:
    """What files of events cannot hold must not be found out when hours have been listened to."""

    class Scripted:
        def write(self, windows, question: str, n: int, temperature: float, max_tokens: int) -> list[list[Written]]:
            ids = model.processor.answer_ids("<0.20><0.60><0.40>null<0.80><0.40>dog  bark<0.80><3.00>siren<4.00>")
            return [[Written(ids, [0.0] * len(ids))] for _ in windows]

    second = [np.zeros(16000, np.float32)]
    answerers = [ModelAnswerer(model.processor, Scripted(), "?", 10.0, label=label) for label in ("", "a\nquery")]
    found = [[(e.onset, e.label) for e in answerer.answer(second)[0]] for answerer in answerers]
    assert found == [[(0.4, "dog bark")], [(0.2, "a query"), (0.4, "a query"), (0.4, "dog bark")]]


def test_texts_of_tokens_are_the_answers_text(model: Model) -> None:
    processor: Processor = model.processor
    for text in ("<0.40>dog_bark<1.20>", "Hündin bellt – 犬 0.4-1.2; x 1.00-2.00", "none"):
        ids = processor.answer_ids(text)
        assert "".join(token_texts(processor, ids, processor.answer_text(ids))) == text
        assert len(token_texts(processor, ids, processor.answer_text(ids))) == len(ids) - 1


def test_a_model_answers_windows_greedily_or_by_samples(model: Model, noise: np.ndarray) -> None:
    question = model.question(task="sed")
    greedy, drawn = (ModelAnswerer(model.processor, InProcess(model), question, 10.0, samples=n) for n in (0, 3))
    assert (greedy.kind, drawn.kind, greedy.sample_rate) == ("probability", "share", 16000)
    [events] = greedy.answer([noise])
    assert [(e.onset, e.label) for e in events] == [
        (e.onset, e.label) for e in model.answer(noise, question).events if e.onset < 1.0
    ]
    assert all(0 < e.confidence <= 1 and e.offset <= 1.0 for e in events if e.confidence is not None)
    first, second = drawn.answer([noise, noise])
    assert first == second == drawn.answer([noise])[0]
    assert all(e.confidence in (1 / 3, 2 / 3, 1.0) for e in first)
