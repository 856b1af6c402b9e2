"""Numbers by name, put together over micro-batches, updates and ranks."""

from __future__ import annotations

from trainer.learner import sums


def test_names_say_how_numbers_are_put_together() -> None:
    parts = [{"loss": 1.0, "ratio/max": 2.0}, {"loss": 0.5, "ratio/max": 3.0, "kl": 1.0}]
    assert sums.joined(parts) == {"loss": 1.5, "ratio/max": 3.0, "kl": 1.0}
    assert sums.averaged(parts) == {"loss": 0.75, "ratio/max": 3.0, "kl": 1.0}
    assert sums.joined([{"below/max": -2.0}, {"below/max": -3.0}]) == {"below/max": -2.0}


def test_ranks_put_theirs_together_in_the_order_of_the_names(alone) -> None:
    values = {"b": 1.0, "a/max": 2.0, "c": 3.0}
    assert list(sums.over_ranks(values).items()) == list(values.items())
