"""The answer's text format: what is written is read back, what is mangled is mended and reported."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from timepro.answers import parse_answer, write_answer
from timepro.events import Event
from timepro.timestamps import TimestampVocabulary

VOCABULARY = TimestampVocabulary()
TWO = [Event(0.4, 1.2, "dog_bark"), Event(2.0, 2.4, "glass_breaking")]


def test_written_text_is_exactly_the_format():
    assert write_answer(TWO[::-1], "timestamps", VOCABULARY) == "<0.40>dog_bark<1.20><2.00>glass_breaking<2.40>"
    assert write_answer(TWO[::-1], "digits") == "dog_bark 0.40-1.20; glass_breaking 2.00-2.40"
    assert write_answer([Event(0.4, 1.2, "")], "timestamps", VOCABULARY) == "<0.40><1.20>"
    assert write_answer([Event(0.4, 1.2, ""), Event(2, 3, "")], "digits") == "0.40-1.20; 2.00-3.00"
    assert write_answer([], "digits") == write_answer([], "timestamps", VOCABULARY) == "none"


@pytest.mark.parametrize("style", ["timestamps", "digits"])
def test_round_trip_of_random_answers(style):
    rng = random.Random(0)
    labels = ["", "dog_bark", "a dog barks 3 times", "Rain falls, and someone says 'hello' twice.", "class-1", "s"]
    for _ in range(2000):
        events = []
        for _ in range(rng.randint(0, 6)):
            start = rng.randrange(700)
            events.append(Event(start * 4 / 100, (start + rng.randint(1, 40)) * 4 / 100, rng.choice(labels)))
        answer = parse_answer(write_answer(events, style, VOCABULARY))
        assert answer.clean
        assert answer.events == sorted(events)


def test_times_snap_to_the_grid_and_short_events_keep_a_length():
    assert write_answer([Event(0.411, 1.219, "a")], "timestamps", VOCABULARY) == "<0.40>a<1.20>"
    assert write_answer([Event(1.0, 1.01, "a")], "timestamps", VOCABULARY) == "<1.00>a<1.04>"
    assert write_answer([Event(29.96, 29.97, "a")], "timestamps", VOCABULARY) == "<29.92>a<29.96>"
    assert write_answer([Event(1.0, 1.001, "a")], "digits") == "a 1.00-1.01"


@pytest.mark.parametrize(
    ("event", "style"),
    [
        (Event(1.0, 1.0, "a"), "digits"),
        (Event(2.0, 1.0, "a"), "digits"),
        (Event(-1.0, 1.0, "a"), "digits"),
        (Event(float("nan"), 1.0, "a"), "digits"),
        (Event(1.0, float("inf"), "a"), "digits"),
        (Event(1.0, 2.0, "a; b"), "digits"),
        (Event(1.0, 2.0, "a\nb"), "timestamps"),
        (Event(1.0, 2.0, "a<3.00>b"), "timestamps"),
        (Event(1.0, 2.0, "on 1-2 dogs"), "digits"),
        (Event(1.0, 2.0, "a "), "digits"),
        (Event(1.0, 2.0, "to"), "timestamps"),
    ],
)
def test_what_would_not_be_read_back_is_refused(event, style):
    with pytest.raises(ValueError, match="cannot write"):
        write_answer([event], style, VOCABULARY)


def test_bad_style_and_missing_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"unknown answer style 'xml'.*timestamps, digits"):
        write_answer(TWO, "xml")
    with pytest.raises(ValueError, match="needs a vocabulary"):
        write_answer(TWO, "timestamps")


@pytest.mark.parametrize(
    ("text", "events", "repair"),
    [
        ("from 1.2 to 3.4 seconds", [(1.2, 3.4, "")], "loosely written"),
        ("between 1.2 and 3.4 s", [(1.2, 3.4, "")], "loosely written"),
        ("The dog_bark occurs from 1.2 to 3.4 seconds.", [(1.2, 3.4, "The dog_bark")], "loosely written"),
        ("dog 1.2\u20133.4sec", [(1.2, 3.4, "dog")], "loosely written"),
        ("dog: 1.2-3.4", [(1.2, 3.4, "dog")], "loosely written"),
        ('"dog" (1.2-3.4)', [(1.2, 3.4, "dog")], "loosely written"),
        ("1.2-3.4: dog", [(1.2, 3.4, "dog")], "label after"),
        ("1. dog 1-2\n2. cat 3-4", [(1, 2, "dog"), (3, 4, "cat")], "line breaks"),
        ("dog 1-2, cat 3-4", [(1, 2, "dog"), (3, 4, "cat")], "loosely written"),
        ("dog 1-2, 3-4", [(1, 2, "dog"), (3, 4, "dog")], "shares the label"),
        ("dog 3.4-1.2", [(1.2, 3.4, "dog")], "reversed"),
        ("<3.40>dog<1.20>", [(1.2, 3.4, "dog")], "reversed"),
        ("<1.20>dog<1.20><2.00>cat<3.00>", [(2, 3, "cat")], "without length"),
        ("dog 1-2; cat 2-2", [(1, 2, "dog")], "without length"),
        ("<1.00>dog<2.00><3.00>ca", [(1, 2, "dog")], "half-finished"),
        ("<1.00>dog<2.00><3.00>cat<3.", [(1, 2, "dog")], "half-finished"),
        ("dog 1-2; cat 3.0-", [(1, 2, "dog")], "half-finished"),
        ("dog 1-2; ca", [(1, 2, "dog")], "half-finished"),
        ("dog 1; cat 3-4", [(3, 4, "cat")], "missing end"),
        ("<1.00>dog;<2.00>cat<3.00>", [(2, 3, "cat")], "missing end"),
        ("I hear <1.00>dog<2.00>", [(1, 2, "dog")], "stray"),
        ("dog <1.00>-<2.00>", [(1, 2, "dog")], "label outside"),
        ("dog 1-2; cat 999999999-3", [(1, 2, "dog")], "absurd"),
        ("dog 1-2; cat " + "9" * 500 + "-3", [(1, 2, "dog")], "absurd"),
        ("dog 1-2; cat -3-4", [(1, 2, "dog")], "negative"),
        ("dog 1-2;", [(1, 2, "dog")], "separator"),
    ],
)
def test_loose_answers_are_mended_and_say_so(text, events, repair):
    answer = parse_answer(text)
    assert answer.events == [Event(*event) for event in events]
    assert answer.ok
    assert not answer.clean
    assert any(repair in entry for entry in answer.repairs), answer.repairs


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("<1.00>dog<2.00>", 0),
        ("<1.00>dog<2.00><3.00>cat", 1),
        ("<1.00>dog<2.00><3.00>cat<3.00><4.00>cow<4.00>", 2),
        ("<1.00>dog<2.00>cat", 1),
        ("<1.00>dog<2.00>cat<3.00>", 2),  # a label, and a time without a label
        ("<3.40>dog<1.20>", 0),  # mended, and nothing is left out
        ("dog 1-2; cat 3.0-", 1),
        ("dog 1-2; cat -3-4; cow 5-5", 2),
        ("dog from 1 to 2 seconds", 0),
        ('[{"label": "dog", "onset": 1, "offset": 2}, {"label": "cat", "on', 1),
        ("No events", 0),
    ],
)
def test_parts_that_are_left_out_are_counted(text, unread):
    assert parse_answer(text).unread == unread


def test_duplicates_are_kept():
    assert parse_answer("dog 1-2; dog 1-2").events == [Event(1, 2, "dog")] * 2


@pytest.mark.parametrize("text", ["none", " none\n"])
def test_none_is_a_clean_answer(text):
    assert parse_answer(text).clean
    assert parse_answer(text).events == []


@pytest.mark.parametrize("text", ["None.", "No events", "There are no sound events."])
def test_other_words_for_none_are_usable_but_not_clean(text):
    answer = parse_answer(text)
    assert (answer.events, answer.ok, answer.clean) == ([], True, False)


@pytest.mark.parametrize("text", ["", "  \n", "hello", "nan-inf", "dog 2-2", "1e9-2e9", "<1.00>", "<<<>>>", "dog -1-2"])
def test_unreadable_answers_are_not_ok(text):
    answer = parse_answer(text)
    assert (answer.events, answer.ok) == ([], False)
    assert answer.repairs


def test_never_raises_on_noise():
    rng = random.Random(1)
    words = ["<", ">", "-", ".", ";", "\n", "1", "2.5", "dog", "to", "from", "between", "and", "s", "\u2013", "\u0663"]
    alphabet = [*words, "none", " 3 - 4", "<1.0>", "<7>", *[" "] * 6]
    usable = 0
    for _ in range(20_000):
        answer = parse_answer("".join(rng.choices(alphabet, k=rng.randint(0, 25))))
        assert answer.ok or not answer.events
        assert all(0 <= event.onset < event.offset for event in answer.events)
        usable += bool(answer.events)
    assert 1000 < usable < 20_000  # the noise reaches both outcomes


PIECES = [
    "<", "<1", "<1>", "<1>a", "1", "1-", "1 ", "1.", ".1", "-", "- ", " ", "\n", ";", "1-2;", "a 1-2, ", "and ", "1) ",
    "between ", "between 1 and ", "from ", "1 s ", "none ", "(", '"', "[", "{", "{'a': ", "[1,", "'", "**", "start 1 ",
    "1:", "1|", "1-2 a, ", "(a) 1-2", "\u0663", "</think>", "- ", "a\n", "1-2\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("end", ["", "1-2", "x"])
def test_long_hostile_answers_take_a_linear_number_of_steps(piece, end):
    """Lines of the parser's code run grow in proportion to the text (the patterns themselves: next test)."""

    readers = Path(parse_answer.__code__.co_filename).parent

    def lines(length: int) -> int:
        count = 0

        def trace(frame, event, arg):
            nonlocal count
            if Path(frame.f_code.co_filename).parent != readers:
                return None  # not ours: a callback of the garbage collector, say
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            parse_answer(piece * (length // len(piece)) + end)
        finally:
            sys.settrace(before)
        return count

    assert lines(2000) <= 4.5 * lines(500) + 100


@pytest.mark.parametrize("piece", PIECES)
def test_hundred_kilobytes_return(piece):
    """A pattern that backtracks quadratically would need minutes for each of these."""
    parse_answer(piece * (100_000 // len(piece)) + "x")
