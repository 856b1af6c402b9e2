"""Thresholds kept in a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from timepro.inference.thresholds import THRESHOLDS, Thresholds, read_thresholds, write_thresholds


def test_both_kinds_stand_side_by_side(tmp_path: Path) -> None:
    share = Thresholds("share", 0.5, {"dog_bark": 0.625}, {"samples": 8, "precision": 0.9})
    probability = Thresholds("probability", 0.25)
    assert read_thresholds(tmp_path, "share") is None
    write_thresholds(tmp_path, share)
    assert read_thresholds(tmp_path, "probability") is None
    write_thresholds(tmp_path, probability)
    assert read_thresholds(tmp_path, "share") == share
    assert read_thresholds(tmp_path, "probability") == probability
    assert share.keeps("dog_bark", 0.625) and not share.keeps("dog_bark", 0.6) and share.keeps("siren", 0.5)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 2, "kinds": {}}', '{"version": 1}', '{"version": 1, "kinds": {"share": {}}}',
     '{"version": 1, "kinds": {"share": {"default": 3, "thresholds": {}}}}'],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / THRESHOLDS).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{THRESHOLDS} cannot be read .*timepro plot calibration"):
        read_thresholds(tmp_path, "share")


def test_a_threshold_is_a_number_from_0_to_1() -> None:
    with pytest.raises(ValueError, match="the threshold of siren is 1.5"):
        Thresholds("share", 0.5, {"siren": 1.5})
