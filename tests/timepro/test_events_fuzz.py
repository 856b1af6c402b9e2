"""Generated answers, mangled: never an exception, never an impossible event, and what is written is read back exactly.

The generator is that of `experiments/benchmarks/answers.py`, which runs it a million times and compares lengths.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from timepro.answers import parse_answer, write_answer
from timepro.events import Event
from timepro.timestamps import TimestampVocabulary

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "answers.py"
specification = importlib.util.spec_from_file_location("benchmark_answers", SCRIPT)
fuzzer = importlib.util.module_from_spec(specification)
specification.loader.exec_module(fuzzer)


def test_generated_answers_give_possible_events_and_no_exception():
    usable = unusable = longest = 0
    for text in fuzzer.answers(30_000, seed=1):
        answer = parse_answer(text)
        assert not fuzzer.fault(answer), text
        usable, unusable = usable + answer.ok, unusable + (not answer.ok)
        longest = max(longest, len(text))
    assert min(usable, unusable) > 5_000  # the generator reaches both outcomes
    assert longest > 40_000


@pytest.mark.parametrize("style", ["timestamps", "digits"])
def test_what_can_be_written_is_read_back_exactly_next_to_anything(style):
    rng = random.Random(2)
    vocabulary = TimestampVocabulary()
    written = refused = 0
    for _ in range(3000):
        labels = [_label(rng) for _ in range(3)]
        events = []
        for label in labels:
            onset = rng.randrange(700)
            event = Event(onset * 4 / 100, (onset + rng.randint(1, 40)) * 4 / 100, label)
            try:
                write_answer([event], style, vocabulary)
            except ValueError:
                refused += 1
            else:
                events.append(event)
                written += 1
        answer = parse_answer(write_answer(events, style, vocabulary))
        assert answer.clean
        assert answer.events == sorted(events)
    assert written > 3000
    assert refused > 500


def _label(rng: random.Random) -> str:
    words = [*fuzzer.PIECES, "dog", "a cat", "rain 3", "{", "5-6", "\u00e9"]
    return "".join(rng.choices(["dog ", "barks", " "] if rng.random() < 0.3 else words, k=rng.randint(0, 4)))
