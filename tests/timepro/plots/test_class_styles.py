"""A class has one look in all pictures of a run, and no two have the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from timepro.plots.canvas import PALETTE
from timepro.plots.class_styles import CAPACITY, UNKNOWN, UNLABELLED, class_styles

# Machado, Oliveira and Fernandes (2009), severity 1: how colours look without the long or the medium cones.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TO_CONES = [[0.412221, 0.536333, 0.051446], [0.211903, 0.680700, 0.107397], [0.088302, 0.281719, 0.629979]]
TO_OKLAB = [[0.210454, 0.793618, -0.004072], [1.977998, -2.428592, 0.450594], [0.025904, 0.782772, -0.808676]]


def oklab(colour: str, seen_through) -> np.ndarray:
    """Oklab, in which equal distances look about equally large."""
    channel = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(seen_through) @ linear, 0, 1)
    return np.array(TO_OKLAB) @ np.cbrt(np.array(TO_CONES) @ linear)


@pytest.mark.parametrize(("eyes", "least"), [(np.eye(3), 0.11), (PROTANOPIA, 0.07), (DEUTERANOPIA, 0.07)])
def test_any_two_colours_are_told_apart_by_all_eyes(eyes, least) -> None:
    for a, b in itertools.combinations([*PALETTE, UNLABELLED.colour], 2):
        assert np.linalg.norm(oklab(a, eyes) - oklab(b, eyes)) > least, (a, b)


def test_as_many_classes_as_there_are_looks_all_differ() -> None:
    classes = [f"class-{i:02d}" for i in range(CAPACITY)]
    styles = class_styles(classes, classes)
    looks = [styles.by_label[label] for label in [*classes, ""]]
    assert styles.distinct and len(set(looks)) == CAPACITY + 1
    assert len({look.colour for look in looks[: len(PALETTE)]}) == len(PALETTE)  # colours first, hatches later
    assert not {look.hatch for look in looks[: len(PALETTE)]} - {""}


def test_a_look_depends_on_the_classes_alone() -> None:
    classes = ["a", "b", "c"]
    assert class_styles(classes, ["c"]).by_label["c"] == class_styles(classes, ["a", "b", "c", "x"]).by_label["c"]
    assert class_styles(classes, ["x"]).by_label["x"] == UNKNOWN
    assert class_styles(classes, ["x"], captions=["x"]).by_label["x"].known
    assert class_styles((), ["x"]).by_label["x"].known


def test_more_classes_than_looks_are_coloured_by_picture_and_that_is_said() -> None:
    styles = class_styles([f"{i}" for i in range(CAPACITY + 1)], ["7", "8"])
    assert len(set(styles.by_label.values())) == 3 and styles.distinct
    assert f"{CAPACITY + 1} classes" in styles.note
    assert not class_styles((), [f"{i}" for i in range(CAPACITY + 1)]).distinct
