"""Whole second and fraction as two tokens: the same times, prompts and answers as with one token a time."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timepro.answers import parse_answer, write_answer
from timepro.astp import AstpLayout, clip_tokens, expand_prompt, interleave, timestamps_in
from timepro.checks.limits import ModelLimits
from timepro.events import Event
from timepro.features import Processor
from timepro.timestamps import FactorisedVocabulary, TimestampVocabulary, vocabulary_of
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from timepro.tiny.tokenizer import build_tokenizer

AUDIO, FIRST = 7, 1000
GRIDS = [(0.04, 30.0), (0.1, 120.0), (0.5, 3.0), (0.025, 2.0), (0.04, 3600.0)]


@pytest.mark.parametrize(("stride", "duration"), GRIDS)
def test_the_two_tokens_of_a_time_write_what_one_would(stride: float, duration: float) -> None:
    vocabulary, table = FactorisedVocabulary(stride, duration), TimestampVocabulary(stride, duration)
    tokens = vocabulary.tokens()
    assert len(set(tokens)) == len(tokens) == vocabulary.size == sum(len(kind.numbers) for kind in vocabulary.kinds)
    assert vocabulary.steps == table.steps == table.size
    for index in [*range(0, table.steps, max(1, table.steps // 500)), table.steps - 1]:
        spelling = vocabulary.spelling(index)
        assert "".join(tokens[place] for place in spelling) == table.stamp(index) == vocabulary.stamp(index)
        assert vocabulary.spelled(spelling) == index
        assert vocabulary.index(table.seconds(index)) == index


def test_an_hour_takes_fewer_than_4000_tokens() -> None:
    vocabulary = vocabulary_of("factorised", 0.04, 3600.0)
    assert vocabulary.size == 3625 and vocabulary_of("table", 0.04, 3600.0).size == 90_000
    assert str(vocabulary) == "factorised, 3600 s in steps of 0.04 s, 3,625 tokens"
    tokens = vocabulary.tokens()
    assert (tokens[0], tokens[3599], tokens[3600], tokens[-1]) == ("<0", "<3599", ".00>", ".96>")


@pytest.mark.parametrize(
    ("stride", "duration", "message"),
    [
        (0.3, 30.0, "a stride that divides a second, such as 0.04, not 0.3"),
        (0.08, 30.0, "not 0.08"),
        (1.0, 30.0, "not 1.0"),
        (2.0, 30.0, "not 2.0"),
        (0.04, 30.4, "covers whole seconds, not 30.4; .*timestamps.duration to 31"),
        (0.0, 30.0, "must be positive"),
        (0.04, -1.0, "must be positive"),
    ],
)
def test_a_grid_that_seconds_and_fractions_cannot_have_is_refused(stride: float, duration: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary_of("factorised", stride, duration)


def test_an_unknown_style_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="style is 'sums'; it must be one of table, factorised"):
        vocabulary_of("sums", 0.04, 30.0)


def layout(**changes: Any) -> AstpLayout:
    return replace(AstpLayout(first_token_id=FIRST, style="factorised"), **changes)


@pytest.mark.parametrize("every", [1, 3, 5, 25])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("n_frames", [0, 1, 26, 250, 750])
def test_prompts_are_those_of_the_table_with_two_tokens_a_time(n_frames: int, position: str, every: int) -> None:
    factorised, table = (layout(every=every, position=position, style=style) for style in ("factorised", "table"))
    ids = interleave(n_frames, AUDIO, factorised, 25.0)
    one = interleave(n_frames, AUDIO, table, 25.0)
    expected = []
    for token in one:
        second, fraction = divmod(token - FIRST, 25)
        expected += [AUDIO] if token == AUDIO else [FIRST + second, FIRST + 30 + fraction]
    assert ids == expected
    assert (len(ids), len(one)) == (clip_tokens(n_frames, factorised), clip_tokens(n_frames, table))
    stamps = timestamps_in([1, *ids, 2], factorised)
    assert [seconds for seconds, _ in stamps] == [seconds for seconds, _ in timestamps_in([1, *one, 2], table)]
    for seconds, places in stamps:
        beside = places[-1] + 1 if position == "before" else places[0] - 1
        assert ids[beside - 1] == AUDIO and ids[: beside - 1].count(AUDIO) == round(25 * seconds)


def test_a_lone_second_in_a_question_is_no_timestamp_of_the_prompt() -> None:
    prompt = expand_prompt([FIRST + 3, AUDIO, FIRST + 3, 5], [2], AUDIO, layout(), 25.0)
    assert [seconds for seconds, _ in timestamps_in(prompt, layout())] == [0.0, 0.04]


def test_a_clip_beyond_the_range_is_told_both_lengths() -> None:
    message = (
        r"clip of 412 s \(10300 audio frames\) is longer than the vocabulary's 30 s: the timestamps end at <29.96>; "
        ".*model.tiny.timestamps.duration.*init-model --duration"
    )
    for style in ("factorised", "table"):
        with pytest.raises(ValueError, match=message):
            interleave(10_300, AUDIO, layout(style=style), 25.0)
    assert len(interleave(10_300, AUDIO, layout(duration=3600.0, every=25), 25.0)) == 10_300 + 2 * 412


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = ["<12.48> What is it? <3 12> .48>"]
    return build_tokenizer(["siren"], texts, FactorisedVocabulary(0.04, 3600.0))


def test_every_time_is_its_two_tokens_and_back(tokenizer: Any) -> None:
    vocabulary = FactorisedVocabulary(0.04, 3600.0)
    first = tokenizer.convert_tokens_to_ids("<0")
    draw = random.Random(0)
    for index in [0, 24, 25, 250, 2500, 25_000, 89_999, *draw.sample(range(90_000), 300)]:
        ids = tokenizer(vocabulary.stamp(index), add_special_tokens=False).input_ids
        assert tuple(i - first for i in ids) == vocabulary.spelling(index)
        assert tokenizer.decode(ids) == vocabulary.stamp(index)


def test_answers_are_read_back_from_their_tokens(tokenizer: Any) -> None:
    vocabulary, draw = FactorisedVocabulary(0.04, 3600.0), random.Random(1)
    for _ in range(100):
        events = []
        for label in draw.sample(["siren", "a dog, twice", "12", "no 3", ""], draw.randint(1, 4)):
            onset, offset = sorted(draw.sample(range(vocabulary.steps), 2))
            events.append(Event(vocabulary.seconds(onset), vocabulary.seconds(offset), label))
        text = write_answer(events, "timestamps", vocabulary)
        assert text == write_answer(events, "timestamps", TimestampVocabulary(0.04, 3600.0))
        read = parse_answer(tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids))
        assert read.clean and read.events == sorted(events)


def test_half_a_time_is_a_repair_and_no_event() -> None:
    """What a model may write that takes a second for a time."""
    for text in ("<1siren<2", "<1.00>siren<2", "<1siren<2.00>"):
        read = parse_answer(text)
        assert not read.clean and not read.events


def test_a_tiny_checkpoint_keeps_its_style(tmp_path: Path) -> None:
    config = TinyModelConfig(
        hidden_size=64, heads=2, key_value_heads=1, encoder_width=32, encoder_layers=1, encoder_heads=2, layers=1,
        timestamps=TimestampsConfig(duration=3600.0, style="factorised"), astp_every=25,
    )  # fmt: skip
    build_tiny_checkpoint(tmp_path / "hour", config, ["siren"], ["When?"])
    processor = Processor(tmp_path / "hour")
    ids = processor.layout.token_ids
    assert processor.layout.style == "factorised" and len(ids) == 3625
    assert list(ids) == processor.tokenizer.convert_tokens_to_ids(processor.layout.vocabulary.tokens())
    assert not set(ids) & set(processor.layout.banned_token_ids)
    said = "factorised, 3600 s in steps of 0.04 s, 3,625 tokens; one after every 25 audio frames; answers in timestamps"
    assert str(processor.layout) == said
    limits, planned = ModelLimits.of_checkpoint(tmp_path / "hour"), ModelLimits.of_tiny(config)
    assert limits.audio_tokens(20.0) == planned.audio_tokens(20.0) == 500 + 2 * 20
    prompt = processor.expanded_prompt("When?", 500)
    assert len(prompt) - len(processor.prompt_ids("When?")) == 540 - 1
