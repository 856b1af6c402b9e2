"""A manifest's clips shared out over several, such as training and validation; a recording stays in one of them."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

from timepro.data.manifest import iter_manifest, manifest_line
from timepro.system.files import replacing


def split(source: Path, parts: Sequence[tuple[Path, float]], seed: int = 0) -> dict[Path, int]:
    """Share a manifest's recordings out at random; clips about the same audio file stay together.

    The order of the clips does not matter, and a recording that is added later moves few others.

    Args:
        parts: (manifest to write, its share); shares are relative to their sum.

    Returns:
        clips in each part.

    Raises:
        ValueError: shares that are not above 0, a file that would be read and written or written twice, or too few
            recordings for every part to get one.
    """
    places = [os.path.realpath(path) for path, _ in parts]
    if os.path.realpath(source) in places or len(set(places)) < len(places):
        raise ValueError(f"{source} and the parts must be different files; give each a name of its own")
    if bad := [(path, share) for path, share in parts if not 0 < share < float("inf")]:
        raise ValueError(f"{bad[0][0]}={bad[0][1]:g}: a share is a number above 0")
    found = {str(clip.audio) for clip in iter_manifest(source)}
    recordings = sorted(found, key=lambda audio: _draw(source, audio, seed))
    total = sum(share for _, share in parts)
    ends = [round(len(recordings) * done / total) for done in accumulate(share for _, share in parts)]
    if any(end == before for before, end in zip([0, *ends], ends, strict=False)):
        raise ValueError(f"{source}: {len(recordings)} recordings are too few for these {len(parts)} shares")
    part_of = {audio: bisect_right(ends, rank) for rank, audio in enumerate(recordings)}
    counts = dict.fromkeys([path for path, _ in parts], 0)
    with ExitStack() as stack:  # after a failure none of the parts is there
        files = [stack.enter_context(replacing(path)) for path, _ in parts]
        folders = [os.path.abspath(path.parent) for path, _ in parts]
        for clip in iter_manifest(source, check_audio=False):
            index = part_of[str(clip.audio)]
            files[index].write(manifest_line(clip, folders[index]))
            counts[parts[index][0]] += 1
    return counts


def _draw(source: Path, audio: str, seed: int) -> bytes:
    """A number for a recording that depends on its path below the manifest and on the seed alone."""
    place = os.path.relpath(audio, os.path.abspath(source.parent))
    return hashlib.sha256(f"{seed}:{place}".encode(errors="surrogateescape")).digest()
