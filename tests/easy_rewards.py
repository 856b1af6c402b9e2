"""A user's reward, named by its import path: one with spread even for a model that has hardly been trained."""

from __future__ import annotations

import numpy as np

from rewards import Group


def share_of_times(group: Group) -> np.ndarray:
    """Timestamps and spaces among an answer's tokens."""
    return np.array([(c.text.count("<") + 0.1 * c.text.count(" ")) / c.n_tokens for c in group.completions])
