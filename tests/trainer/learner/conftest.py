"""What the learner's tests share."""

from __future__ import annotations

import pytest

from trainer.learner import distributed


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank without a process group: what it says is what all ranks say."""
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    monkeypatch.setattr(distributed, "_reduced", lambda values, operation: dict(values))
    monkeypatch.setattr(distributed, "from_first", lambda value: value)
    monkeypatch.setattr(distributed, "from_every", lambda value: [value])
