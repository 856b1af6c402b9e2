"""The timestamp vocabulary and the layout of audio frames and timestamps in a prompt."""

from __future__ import annotations

import json
from fractions import Fraction
from types import SimpleNamespace

import pytest

from timepro.astp import AstpLayout, expand_prompt, interleave
from timepro.timestamps import TimestampVocabulary

AUDIO = 7
FIRST = 1000


def test_the_default_vocabulary_is_the_papers():
    vocabulary = TimestampVocabulary()
    tokens = vocabulary.tokens()
    assert vocabulary.size == len(tokens) == 750
    hundredths = [4 * i for i in range(750)]
    assert tokens == [f"<{h // 100}.{h % 100:02d}>" for h in hundredths]
    assert (tokens[0], tokens[1], tokens[25], tokens[-1]) == ("<0.00>", "<0.04>", "<1.00>", "<29.96>")


@pytest.mark.parametrize(
    ("stride", "duration", "first", "last", "size"),
    [
        (0.1, 1.0, "<0.0>", "<0.9>", 10),
        (0.5, 60, "<0.0>", "<59.5>", 120),
        (1, 3, "<0>", "<2>", 3),
        (0.025, 0.1, "<0.000>", "<0.075>", 4),
        (0.08, 30.0, "<0.00>", "<29.92>", 375),
    ],
)
def test_tokens_are_exact_decimals_of_the_stride(stride, duration, first, last, size):
    vocabulary = TimestampVocabulary(stride, duration)
    tokens = vocabulary.tokens()
    assert (tokens[0], tokens[-1], len(tokens)) == (first, last, size)
    exact = [Fraction(str(stride)) * i for i in range(size)]
    assert [Fraction(token.strip("<>")) for token in tokens] == exact


def test_every_grid_point_is_found_by_its_time():
    vocabulary = TimestampVocabulary()
    for i in range(vocabulary.size):
        assert vocabulary.seconds(i) == float(Fraction(4 * i, 100))
        assert vocabulary.index(vocabulary.seconds(i)) == i
        assert vocabulary.index(vocabulary.seconds(i) + 0.019) == i
        assert vocabulary.index(max(0.0, vocabulary.seconds(i) - 0.019)) == i


def test_the_end_of_the_range_is_the_last_grid_point():
    vocabulary = TimestampVocabulary()
    assert vocabulary.index(29.97) == vocabulary.index(29.99) == vocabulary.index(30.0) == 749


@pytest.mark.parametrize("seconds", [30.01, 31.0, -0.03, -1.0, -0.01, float("nan"), float("inf")])
def test_a_time_outside_the_range_names_the_setting(seconds):
    with pytest.raises(ValueError, match=r"outside the timestamp range.*model\.tiny\.timestamps\.duration"):
        TimestampVocabulary().index(seconds)


@pytest.mark.parametrize("index", [-1, 750])
def test_an_index_outside_the_vocabulary_is_refused(index):
    with pytest.raises(ValueError, match=rf"timestamp index {index} is outside 0\.\.749"):
        TimestampVocabulary().stamp(index)


@pytest.mark.parametrize(("stride", "duration"), [(0.0, 30.0), (-0.04, 30.0), (0.04, 0.0), (0.04, -1)])
def test_stride_and_range_must_be_positive(stride, duration):
    with pytest.raises(ValueError, match="must be positive"):
        TimestampVocabulary(stride, duration)


def test_a_range_that_is_no_multiple_of_the_stride_suggests_one():
    with pytest.raises(ValueError, match=r"30\.0 is not a multiple of stride 0\.07.*timestamps\.duration") as error:
        TimestampVocabulary(0.07, 30.0)
    assert str(error.value).endswith("30.03")


def test_the_suggested_range_is_a_clean_number_that_is_accepted():
    with pytest.raises(ValueError, match="for example") as error:
        TimestampVocabulary(0.1, 0.25)
    suggested = str(error.value).rsplit(" ", 1)[1]
    assert TimestampVocabulary(0.1, float(suggested)).size == 3


def layout(**changes):
    return AstpLayout(**{"first_token_id": FIRST, **changes})


def test_off_gives_audio_frames_alone():
    assert interleave(4, AUDIO, AstpLayout(enabled=False), 25.0) == [AUDIO] * 4


def test_after_puts_each_frames_time_behind_it():
    assert interleave(3, AUDIO, layout(), 25.0) == [AUDIO, FIRST, AUDIO, FIRST + 1, AUDIO, FIRST + 2]


def test_before_puts_each_frames_time_ahead_of_it():
    assert interleave(2, AUDIO, layout(position="before"), 25.0) == [FIRST, AUDIO, FIRST + 1, AUDIO]


def test_every_third_frame_with_a_partial_last_block():
    expected = [AUDIO, FIRST, AUDIO, AUDIO, AUDIO, FIRST + 3, AUDIO]
    assert interleave(5, AUDIO, layout(every=3), 25.0) == expected
    before = [FIRST, AUDIO, AUDIO, AUDIO, FIRST + 3, AUDIO, AUDIO]
    assert interleave(5, AUDIO, layout(every=3, position="before"), 25.0) == before


@pytest.mark.parametrize("every", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("n_frames", [0, 1, 6, 7, 8, 200, 750])
def test_each_timestamp_stands_beside_the_frame_it_names(n_frames, position, every):
    ids = interleave(n_frames, AUDIO, layout(every=every, position=position), 25.0)
    assert ids.count(AUDIO) == n_frames
    assert len(ids) == n_frames + -(-n_frames // every)
    for place, token in enumerate(ids):
        if token == AUDIO:
            continue
        frame = place + 1 if position == "before" else place - 1
        assert ids[frame] == AUDIO
        assert token - FIRST == ids[:frame].count(AUDIO)
        assert (token - FIRST) % every == 0


def test_a_coarser_vocabulary_names_the_grid_point_of_the_frame():
    ids = interleave(5, AUDIO, layout(stride=0.08, every=2), 25.0)
    assert ids == [AUDIO, FIRST, AUDIO, AUDIO, FIRST + 1, AUDIO, AUDIO, FIRST + 2]


def test_a_clip_to_the_end_of_the_range_fits_and_one_frame_more_does_not():
    assert interleave(750, AUDIO, layout(), 25.0)[-1] == FIRST + 749
    with pytest.raises(
        ValueError, match=r"clip of 30\.04 s \(751 .*longer than the vocabulary's 30 s.*<29\.96>.*--duration"
    ):
        interleave(751, AUDIO, layout(), 25.0)


def test_frames_behind_the_last_timestamp_need_none():
    ids = interleave(752, AUDIO, layout(every=4), 25.0)
    assert ids[-5:] == [AUDIO, FIRST + 748, AUDIO, AUDIO, AUDIO]
    with pytest.raises(ValueError, match="753 audio frames"):
        interleave(753, AUDIO, layout(every=4), 25.0)


def test_expand_prompt_puts_each_clip_in_its_place():
    expanded = expand_prompt([1, AUDIO, 2, AUDIO, 3], [1, 2], AUDIO, layout(), 25.0)
    assert expanded == [1, AUDIO, FIRST, 2, AUDIO, FIRST, AUDIO, FIRST + 1, 3]
    assert expand_prompt([1, 2], [], AUDIO, layout(), 25.0) == [1, 2]


@pytest.mark.parametrize(("prompt", "frames"), [([1, AUDIO], []), ([1], [2]), ([AUDIO, AUDIO], [3])])
def test_expand_prompt_wants_one_placeholder_a_clip(prompt, frames):
    with pytest.raises(ValueError, match=f"{prompt.count(AUDIO)} audio placeholders for {len(frames)} clips"):
        expand_prompt(prompt, frames, AUDIO, layout(), 25.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": "beside"}, "astp.position is 'beside'"),
        ({"every": 0}, "astp.every is 0"),
        ({"answer_style": "words"}, "astp.answer_style is 'words'"),
        ({"first_token_id": -1}, "first_token_id is not set"),
        ({"style": "digits"}, "style is 'digits'; it must be one of table, factorised"),
        ({"style": "factorised", "stride": 0.3}, "a stride that divides a second, such as 0.04, not 0.3"),
    ],
)
def test_a_wrong_layout_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        layout(**changes)


def test_the_layout_survives_a_trip_through_json():
    original = layout(
        every=3, position="before", banned_token_ids=(5, 6), answer_style="timestamps", stride=0.2, style="factorised"
    )
    stored = json.loads(json.dumps(original.to_config()))
    assert AstpLayout.from_config(SimpleNamespace(astp=stored)) == original


def test_a_checkpoint_without_a_layout_has_astp_off():
    layout = AstpLayout.from_config(SimpleNamespace())
    assert not layout.enabled and str(layout) == "none"
    with pytest.raises(ValueError, match="astp entry is list"):
        AstpLayout.from_config(SimpleNamespace(astp=[1]))
