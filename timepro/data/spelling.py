"""Labels that differ in spelling alone: people mean one class, and programs count two."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NO_LETTER = re.compile(r"[\W_]+")


def spelling(label: str) -> str:
    """What is left of a label without case, marks between words and Unicode's several ways to write a character."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return _NO_LETTER.sub(" ", folded).strip()


def spelt_alike(labels: Iterable[str]) -> list[list[str]]:
    """Groups of two or more labels of one side that differ in spelling alone."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        if key := spelling(label):
            groups.setdefault(key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def spelt_otherwise(one: Iterable[str], other: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs (label of the one side, label of the other) that differ in spelling alone and of which one stands alone."""
    left, right = set(one), set(other)
    pairs = {
        (a, b)
        for group in spelt_alike(left | right)
        for a in group
        for b in group
        if a != b and a in left and b in right and not (a in right and b in left)
    }
    return sorted(pairs)


def side_notes(one: Iterable[str], other: Iterable[str], names: tuple[str, str]) -> list[str]:
    """One sentence a pair of labels that differ in spelling alone; names: of the two sides."""
    return [
        f"label {_written(a)} in {names[0]} and {_written(b)} in {names[1]} differ in spelling alone: two classes"
        for a, b in spelt_otherwise(one, other)
    ]


def notes(labels: Iterable[str]) -> list[str]:
    """One sentence a group of labels of one data set that differ in spelling alone."""
    return [
        f"labels {' and '.join(map(_written, group))} differ in spelling alone and are different classes; a label map "
        "can join them"
        for group in spelt_alike(labels)
    ]


def _written(label: str) -> str:
    """A label in a message; a form of Unicode that looks like another is spelt out."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)
