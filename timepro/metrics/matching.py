"""Maximum bipartite matching: the most pairs that can be formed so that no element is in two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def maximum_matching(edges: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """A matching with the most pairs, right node -> left node; ``edges[left]`` are the right nodes it may take.

    Hopcroft and Karp, "An n^(5/2) algorithm for maximum matchings in bipartite graphs", 1973. Which of several
    matchings of that size is found follows from the order of ``edges``: it is the one that `sed_eval` finds for the
    same order, which matters where the pairs themselves are used. No recursion, so that an answer of thousands of
    events cannot exhaust the stack.
    """
    owner: dict[int, int] = {}
    for left, rights in edges.items():
        for right in rights:
            if right not in owner:
                owner[right] = left
                break
    while True:
        reached_from, entered_by, ends = _layers(edges, owner)
        if not ends:
            return owner
        for end in ends:
            _augment(end, reached_from, entered_by, owner)


def _layers(
    edges: Mapping[int, Sequence[int]], owner: Mapping[int, int]
) -> tuple[dict[int, list[int]], dict[int, int | None], list[int]]:
    """The shortest alternating paths, breadth first from every free left node.

    reached_from: right node -> left nodes of the layer before it; entered_by: left node -> the right node that it
    owns and was entered through, None for a free one; ends: the free right nodes that were reached.
    """
    matched = set(owner.values())
    layer = [left for left in edges if left not in matched]
    entered_by: dict[int, int | None] = dict.fromkeys(layer)
    reached_from: dict[int, list[int]] = {}
    ends: list[int] = []
    while layer and not ends:
        found: dict[int, list[int]] = {}
        for left in layer:
            for right in edges[left]:
                if right not in reached_from:
                    found.setdefault(right, []).append(left)
        reached_from |= found
        layer = []
        for right in found:
            if right in owner:
                layer.append(owner[right])
                entered_by[owner[right]] = right
            else:
                ends.append(right)
    return reached_from, entered_by, ends


def _augment(
    end: int, reached_from: dict[int, list[int]], entered_by: dict[int, int | None], owner: dict[int, int]
) -> None:
    """Walk back from a free right node to a free left one and flip the path; nodes walked over are used up."""
    path: list[tuple[int, Iterator[int]]] = [(end, iter(reached_from.pop(end, ())))]
    chosen: list[int] = []  # chosen[i] is the left node through which path[i] was left
    while path:
        for left in path[-1][1]:
            if left not in entered_by:
                continue
            through = entered_by.pop(left)
            chosen.append(left)
            if through is None:
                for (right, _), taker in zip(path, chosen, strict=True):
                    owner[right] = taker
                return
            path.append((through, iter(reached_from.pop(through, ()))))
            break
        else:  # a dead end: one step back
            path.pop()
            if chosen:
                chosen.pop()
