"""What a value in a label file may be: one grammar for every reader and every format.

A number is written in ASCII digits with a point: `1.25`, `.5`, `1e-3`. What Python's float() takes beyond that (`1_0`
for ten, digits of other scripts, `nan`) is refused here: in a label file it is a slip, and a silent one.
"""

from __future__ import annotations

import math
import re
from typing import Any

from timepro.data.manifest import CONTROL, shown

NUMBER = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,4})?"
"""A number's pattern; matching takes time linear in the length of the text."""

_NUMBER = re.compile(NUMBER)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
# What programs write for a missing value; the words are those that pandas reads as one.
_MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NAN", "NULL", "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip


class BadValue(ValueError):
    """What is wrong with a value, as the end of a sentence that names its place."""


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: empty, null, or what programs write for a missing one, such as `nan`."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def seconds(value: Any, below_zero: bool = False) -> float:
    """A time in seconds, from text or from a number of JSON.

    Args:
        below_zero: accept negative times, too.

    Raises:
        BadValue: no number, not finite, or negative.
    """
    if isinstance(value, str):
        value = value.strip()
        readable = bool(_NUMBER.fullmatch(value) or _NOT_FINITE.fullmatch(value))
    else:
        readable = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        number = float(value) if readable else None
    except OverflowError:  # a whole number of JSON with hundreds of digits
        number = None
    if number is None:
        raise BadValue(f"{shown(value)} is not a number of seconds; write it as 1.25")
    if not math.isfinite(number) or (number < 0 and not below_zero):
        raise BadValue(f"{shown(value)} is not a time; times are finite and at least 0 seconds")
    return number


def share(value: Any) -> float:
    """A confidence or the like: a number from 0 to 1, from text or from JSON. Raises BadValue for anything else."""
    try:
        number = seconds(value)
    except BadValue:
        number = math.inf
    if number > 1:
        raise BadValue(f"{shown(value)} is not a confidence; it is a share of 0 to 1")
    return number


def text(value: Any) -> str:
    """A label, a caption or the like, without the white space around it.

    Raises:
        BadValue: no text, only white space, or a tab, a line break or another control character in it.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadValue(f"{shown(value)} is not a text with something in it")
    if CONTROL.search(value.strip()):
        raise BadValue(f"{shown(value)} holds a tab, a line break or the like; replace it")
    return value.strip()
