"""Numbers by name that are put together: over micro-batches, over updates, over ranks.

The name says how. Those that end in `/max` take the largest; all others are sums (of parts that were already divided by
a global count, so that the sum is a mean). Whoever adds a number adds it in one place: where it is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainer.learner import distributed


def takes_largest(name: str) -> bool:
    """Whether a number is put together by the largest instead of by the sum."""
    return name.endswith("/max")


def joined(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """All parts put together; a name that a part lacks counts as nothing there."""
    out: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            if name not in out:
                out[name] = value
            else:
                out[name] = max(out[name], value) if takes_largest(name) else out[name] + value
    return out


def averaged(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """The means of several updates' numbers, the largest of those that take it."""
    return {
        name: value if takes_largest(name) else value / sum(name in part for part in parts)
        for name, value in joined(parts).items()
    }


def over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """All ranks' numbers put together. A collective; every rank gives the same names in the same order."""
    sums = distributed.totals({name: value for name, value in values.items() if not takes_largest(name)})
    most = distributed.maxima({name: value for name, value in values.items() if takes_largest(name)})
    return {name: most[name] if takes_largest(name) else sums[name] for name in values}
