"""How times and intervals are written in an answer: the patterns that all readers share.

Every repetition is possessive (``++``) or bounded and every number is tried at its first digit alone, so that searching
a text takes time linear in its length. ``\\d`` means a digit of any script, which `float` reads too.
"""

from __future__ import annotations

import re

MAX_SECONDS = 86_400.0  # a time beyond one day is noise, not an answer
_MAX_DIGITS = 24  # longer numbers are refused before they reach float()

DASH = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d~\u301c\uff5e"
_POINT = r"[.\uff0e\u066b]"
NUMBER = rf"(?:\d++(?:{_POINT}\d++)?+|\.\d++)"
_CLOCK = r"(?:\d{1,3}[:\uff1a]){1,2}\d{1,2}(?:[.,\uff0e]\d++)?+"  # 1:02.5, 00:01:02,500
_MINUTES = rf"\d{{1,4}} ?(?:minutes?|mins?|m) ?(?:and )?{NUMBER}(?= ?s)"  # 1 min 2.5 s
TIME = rf"(?:{_CLOCK}|{_MINUTES}|{NUMBER})"
_WORD_END = r"(?![A-Za-z0-9_])"
UNIT = rf"(?:(?:milliseconds?|msecs?|ms|minutes?|mins?|seconds?|secs?\.|secs?|s){_WORD_END}|\u79d2)"  # or the CJK sign
# What may stand before a time without meaning anything: "about 1.2", "the second 1.2", "t = 1.2".
_ABOUT = r"(?:(?<![A-Za-z])(?:about|around|approximately|approx\.?|roughly|nearly|t ?=|[~\u2248]) ?)?+"
_THE = r"(?:(?:the|seconds?|sec|time) ){0,2}+"
_MARK = r"(?:[ -](?:marks?|points?)\b)?+"
_ARROW = r"-{1,2}>|=>|\u2192|\u21d2|\u27f6|\.\.\.?|\u2026"
_WORDS = r"(?:up )?to\b|until\b|till\b|through\b|\u5230|\u81f3"
_BEFORE_ONSET = r"(?<![A-Za-z\d_.])(?<!\d[:\uff1a])"
_BEHIND_OFFSET = r"(?![A-Za-z\d_]|[.:]\d)"

# `lead` must be "between" for "and" to join two times: "2 and 3-4" holds one interval, not two.
INTERVAL = re.compile(
    rf"(?:(?<![A-Za-z0-9_])(?:(?P<between>between)|(?P<lead>from|at|during)) {_THE}|\u4ece ?)?+{_ABOUT}"
    rf"{_BEFORE_ONSET}(?P<onset>{TIME})(?P<unit1>[ -]?{UNIT})?{_MARK}"
    rf"(?P<join> ?(?:{_ARROW}|[{DASH}]{{1,3}}|{_WORDS}|(?(between)and\b|-)) ?){_THE}{_ABOUT}"
    rf"(?P<offset>{TIME})(?P<unit2>[ -]?{UNIT})?{_MARK}{_BEHIND_OFFSET}",
    re.IGNORECASE,
)
FULL_TIME = re.compile(rf"(?P<time>{TIME})(?P<unit> ?{UNIT})?", re.IGNORECASE)

_STARTS = r"(?:start(?:s|ing|ed)?|onset|beg[ai]n(?:s|ning)?)"
_ENDS = r"(?:end(?:s|ing|ed)?|offset|stop(?:s|ping|ped)?|finish(?:es|ing|ed)?)"
_IS = (
    r"(?:[ _-](?:times?|timestamp|seconds?|sec|s)(?![A-Za-z])){0,2}+[*\"'`)]{0,3}+ ?[:=]?[ *\"'`]{0,4}+"
    r"(?:(?:[a-z]{1,15} ){0,2}?(?:at|from) )?"
    rf"{_THE}{_ABOUT}"
)
# "Start: 1.2, End: 3.4", also over two lines; "starts at 1.2 s and ends at 3.4 s".
KEYED = re.compile(
    rf"(?<![A-Za-z]){_STARTS}{_IS}{_BEFORE_ONSET}(?<!-)(?P<onset>{TIME})(?P<unit1> ?{UNIT})?{_MARK}"
    rf"[\s,;.|*\"'`()-]{{0,8}}+(?:and )?+(?:then )?+(?:it )?+{_ENDS}{_IS}"
    rf"{_BEFORE_ONSET}(?<!-)(?P<offset>{TIME})(?P<unit2> ?{UNIT})?{_MARK}{_BEHIND_OFFSET}",
    re.IGNORECASE,
)
# "[1.2, 3.4]" and "(1.2 s, 3.4 s)": a comma joins two times inside brackets only.
BRACKETED = re.compile(
    rf"[\[(] ?(?P<onset>{TIME})(?P<unit1> ?{UNIT})? ?, ?(?P<offset>{TIME})(?P<unit2> ?{UNIT})? ?[\])]", re.IGNORECASE
)


def seconds(text: str, unit: str | None = None) -> float | None:
    """The time in seconds, or None where it is absurd: too large, too long, or a clock with 60 seconds and more."""
    if len(text) > _MAX_DIGITS:
        return None
    text = text.replace("\uff0e", ".").replace("\u066b", ".").replace("\uff1a", ":")
    parts = text.replace(",", ".").split(":") if ":" in text else re.split(r" ?m[a-z]* ?(?:and )?", text.lower())
    *larger, last = map(float, parts)
    if any(part >= 60 for part in [*larger[1:], *([last] if larger else [])]):
        return None
    value = sum(part * 60.0**power for power, part in enumerate(reversed(larger), start=1)) + last
    unit = (unit or "").strip(" -").lower()
    if unit.startswith("m"):
        value = value * 60.0 if unit.startswith("min") else value / 1000.0
    return value if value <= MAX_SECONDS else None
