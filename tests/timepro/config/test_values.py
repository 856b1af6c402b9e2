"""The type of a setting decides how its text is read: on the command line, in a file, and in the file that is saved."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from timepro.config import above, at_least, between, load_experiment, load_resolved, save_resolved


@dataclass
class Part:
    text: str = ""
    count: Annotated[int, at_least(0)] = 0
    share: Annotated[float, between(0, 1)] = 0.0
    rate: Annotated[float, above(0)] = 1.0
    number: float = 0.0
    switch: bool = False
    perhaps: int | None = None
    with_: int = 0  # a word of Python's own


@dataclass
class Settings:
    name: str = ""
    part: Part = field(default_factory=Part)
    anything: Any = None
    texts: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def load(tmp_path):
    def _load(*overrides: str, text: str = "") -> Settings:
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        return load_experiment("x", overrides, Settings, tmp_path)

    return _load


WORDS = [
    "off", "on", "yes", "No", "true", "null", "~", "007", "010", "0x10", "0o7", "7e12345", "1e5", "3.10", "1_000",
    "12:30:45", "2024-01-01", ".inf", ".nan", "nan", "inf", "-", "--", "---", "...", "%", "@x", "`x`", "a: b", "a:",
    ":a", "a #1", "# a", "/d/ok #1.jsonl", "{a: 1}", "[a", "[a, b]", "]", "}", "*a", "&a b", "!x", "!!int 5", "|", ">",
    "?", "? a", "- a", "<<", "=", "a=b",
    "${x}", "$(x)", "\\n", "C:\\x", "'", "\"", "it's", "'a' and 'b'", "\"a\" b", "é", "日本語", "🙂", "e\u0301",
]  # fmt: skip


def texts(count: int) -> list[str]:
    """Texts that YAML reads as something else, and random ones made of their characters."""
    rng = random.Random(0)
    letters = "".join(sorted(set("".join(WORDS)) | set(" \tabcXYZ0123456789_.,/+-")))
    made = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(count)]
    return [*WORDS, *(f"{a} {b}" for a, b in zip(WORDS, WORDS[7:], strict=False)), *made]


def is_quoted(text: str) -> bool:
    return len(text) > 1 and text.strip()[:1] in "'\"" and text.strip()[-1:] == text.strip()[0]


def test_a_text_is_taken_as_it_is_typed_and_survives_the_saved_file(load, tmp_path: Path) -> None:
    tried = [text for text in texts(600) if not is_quoted(text)]
    for text in tried:
        loaded = load(f"part.text={text}")
        assert loaded.part.text == text
        save_resolved(loaded, tmp_path / "saved.yaml")
        assert load_resolved(tmp_path / "saved.yaml", Settings) == loaded


def test_quotes_around_the_whole_text_are_yamls(load) -> None:
    for text in texts(300):
        single, double = "'" + text.replace("'", "''") + "'", yaml.dump(text, default_style='"', width=10**6).strip()
        for quoted in (single, double):
            assert load(f"part.text={quoted}").part.text == text
            assert load(text=f"part: {{text: {quoted}}}").part.text == text
            assert load(f"anything={quoted}").anything == text
    assert load("part.text='a' and 'b'").part.text == "'a' and 'b'"


@pytest.mark.parametrize(
    "word", ["off", "on", "yes", "No", "true", "007", "7e12345", "3.10", "1_000", "12:30:45", "0x10"]
)
def test_a_word_in_a_file_is_the_text_that_stands_there(load, word: str) -> None:
    assert load(text=f"name: {word}").name == word
    assert load(text=f"texts: [{word}, b]").texts == [word, "b"]
    assert load(f"texts=[{word}]").texts == [word]


@pytest.mark.parametrize("word", ["null", "~"])
def test_no_text_is_written_as_an_empty_one(load, word: str) -> None:
    with pytest.raises(ValueError, match=r"x\.yaml:1: key name: write '' for no text"):
        load(text=f"name: {word}")
    assert load(f"name={word}").name == word
    assert load(text="part: {text: }").part.text == ""


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("010", 10), ("+3", 3), ("-0", 0), (" 5 ", 5), ("1234567890123", 1234567890123)]
)  # fmt: skip
def test_whole_numbers_are_decimal(load, text: str, value: int) -> None:
    assert load(f"part.count={text}").part.count == value
    assert load(text=f"part: {{count: {text}}}").part.count == value


@pytest.mark.parametrize(
    "text", ["1_0", "0x10", "0o7", "1.0", "1e3", "ten", "", "true", "'5'", "٣", "5 #", "[5]", "9" * 5000]
)
def test_what_is_not_a_whole_number_is_refused(load, text: str) -> None:
    with pytest.raises(ValueError, match=r"key part\.count: .* is not a whole number"):
        load(f"part.count={text}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("1e-5", 1e-5), ("1E-5", 1e-5), (".5", 0.5), ("5.", 5.0), ("+1e-05", 1e-5), ("010", 10.0),
     ("0e999", 0.0), (".inf", math.inf), ("inf", math.inf), ("-.INF", -math.inf)],
)  # fmt: skip
def test_numbers(load, text: str, value: float) -> None:
    found = load(f"part.number={text}").part.number
    assert found == value and isinstance(found, float)
    assert load(text=f"part: {{number: {text}}}").part.number == value


@pytest.mark.parametrize(
    "text", ["fast", "", "1_0", "nan", ".nan", "0x1p3", "1,5", "1e", "true", "'1'", "12:30", "7e12345", "7e-12345"]
)
def test_what_is_not_a_number_is_refused(load, text: str) -> None:
    with pytest.raises(ValueError, match=r"key part\.number: .* is not a number"):
        load(f"part.number={text}")


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "1", "0", "tRue", "", "'true'"])
def test_a_switch_is_true_or_false(load, text: str) -> None:
    assert load("part.switch=true").part.switch is True
    assert load("part.switch=False").part.switch is False
    with pytest.raises(ValueError, match=r"key part\.switch: .* is not true or false") as error:
        load(f"part.switch={text}")
    advice = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}.get(text)
    assert ("write" in str(error.value)) == (advice is not None) and (advice or "") in str(error.value)


def test_a_value_that_may_be_none(load) -> None:
    assert load("part.perhaps=null").part.perhaps is None
    assert load("part.perhaps=3").part.perhaps == 3
    with pytest.raises(ValueError, match=r"key part\.perhaps: 'x' is not a whole number"):
        load("part.perhaps=x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("off", "yes", "0x10", "inf", "7e12345", "12:30:45", "1_000", "a:b", "a #1", "")),
        ("true", True), ("null", None), ("010", 10), ("1e-5", 1e-5), (".inf", math.inf),
        ("{a: off, b: [1, 2.5, x]}", {"a": "off", "b": [1, 2.5, "x"]}), ('{"a": 1, "b": null}', {"a": 1, "b": None}),
    ],
)  # fmt: skip
def test_a_setting_of_any_type_takes_what_yaml_1_2_says(load, text: str, value: Any) -> None:
    assert load(f"anything={text}").anything == value


def test_the_values_of_a_mapping_have_its_type(load) -> None:
    assert load("weights.a=1", "weights.b=0.5").weights == {"a": 1.0, "b": 0.5}
    assert load("extra.a.b=off", text="extra: {a: {c: 1}}").extra == {"a": {"b": "off", "c": 1}}
    with pytest.raises(ValueError, match=r"key weights\.a: 'x' is not a number"):
        load("weights={a: x}")
    with pytest.raises(ValueError, match=r"key weights: 'x' is not a mapping"):
        load("weights=x")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("part.count=-3", "override 'part.count=-3': key part.count: -3 is out of range; it must be at least 0"),
        ("part.share=1.1", "1.1 is out of range; it must be at least 0 and at most 1"),
        ("part.rate=0", "0 is out of range; it must be above 0"),
    ],
)
def test_a_number_out_of_range_is_refused_where_it_is_read(load, override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        load(override)
    assert str(error.value).endswith(message)
    key, _, value = override.removeprefix("part.").partition("=")
    with pytest.raises(ValueError, match=rf"x\.yaml:2: key part\.{key}: .* out of range"):
        load(text=f"part:\n  {key}: {value}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", "x.yaml:2: key name: stands here twice"),
        ("part: {count: 1, count: 1}", "x.yaml:1: key part.count: stands here twice"),
        ("anything: {a: 1, a: 2}", "key anything.a: stands here twice"),
        ("part:", "x.yaml:1: key part: expected a section with text, count"),
        ("part: [1]", "key part: expected a section with text, count"),
        ("name: [a]", "key name: a list is not a text"),
        ("texts: a", "key texts: 'a' is not a list"),
        ("? [a]\n: 1", "a key must be one word"),
        ("name: !!str 5", "the tag"),
        ("anything: &a [*a]", "the alias *a"),
        ("name: a\n bad: [", "not valid YAML"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_line_and_key(load, text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        load(text=text)
    assert message in str(error.value)


def test_a_key_may_be_a_word_of_pythons_own(load, tmp_path):
    for loaded in (load("part.with=3"), load(text="part: {with: 3}")):
        assert loaded.part.with_ == 3
        save_resolved(loaded, tmp_path / "saved.yaml")
        assert "with: 3" in (tmp_path / "saved.yaml").read_text()
        assert load_resolved(tmp_path / "saved.yaml", Settings) == loaded
    with pytest.raises(ValueError, match=r"unknown key part\.with_ \(did you mean part\.with"):
        load("part.with_=3")


def test_configurations_share_no_values_with_one_another_or_the_defaults(load):
    first, second = load("part.text=a", "part.count=3"), load()
    assert (second.part.text, second.part.count) == ("", 0)
    first.texts.append("x")
    first.extra["a"] = 1
    first.weights["a"] = 1.0
    first.part.text = "x"
    for other in (second, load()):
        assert (other.texts, other.extra, other.weights, other.part.text) == ([], {}, {}, "")
