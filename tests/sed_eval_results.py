"""What sed_eval reports, compared with our own scores."""

from __future__ import annotations

from typing import Any

import pytest


def check_against_sed_eval(scores: Any, rate: Any, theirs: dict[str, Any], macro: dict[str, Any]) -> None:
    """Fail where F1 or error rates differ.

    Args:
        scores, rate: ours.
        theirs: sed_eval's results over everything.
        macro: sed_eval's means over classes.
    """
    for ours, average in ((scores.micro, theirs), (scores.macro_sed_eval, macro)):
        expected = average["f_measure"]
        wanted = (expected["f_measure"], expected["precision"], expected["recall"])
        assert (ours.f1, ours.precision, ours.recall) == pytest.approx(wanted, abs=1e-12)
    parts = ("error_rate", "substitution_rate", "deletion_rate", "insertion_rate")
    ours = (rate.error_rate, rate.substitution, rate.deletion, rate.insertion)
    assert ours == pytest.approx(tuple(theirs["error_rate"][part] for part in parts), abs=1e-12)
    if all(row.n_ref for row in scores.class_wise.values()):  # else sed_eval divides by 2e-16
        assert rate.macro == pytest.approx(macro["error_rate"]["error_rate"], abs=1e-12)
