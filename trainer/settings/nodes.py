"""What the nodes of a run do: `nodes.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from timepro.config.marks import Natural, Positive, above


@dataclass
class NodesConfig:
    """What the nodes do. Which node is which comes from the environment, so that all have one setting."""

    generating: Natural = 0  # the last so many nodes only generate and the others only learn; 0: every node does both
    join_timeout_s: Positive = 600.0  # for all nodes to come
    silence_timeout_s: Annotated[float, above(1)] = 15.0  # a node that says nothing for so long is gone; the run ends
