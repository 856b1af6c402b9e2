"""One manifest for several tasks, each with clips of its own.

A clip of a manifest serves every task unless its line says `"tasks": ["ag"]`: published data sets are annotated for one
task, and a clip without queries or captions has nothing to teach the others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timepro.data.manifest import iter_manifest, manifest_line
from timepro.progress import ProgressBar
from timepro.system.files import replacing
from timepro.tasks.registry import find_task


def mix(parts: Sequence[tuple[str, Path]], out: Path, visible: bool = True) -> Counter[str]:
    """Write the clips of several manifests into one, each for its task alone.

    Ids become `TASK:ID`, so that two data sets may use the same; audio paths become relative to ``out``. Clips pass
    through one by one, and ``out`` appears whole or not at all.

    Args:
        parts: (task, manifest) pairs, a task by its name or import path; it may come again with another manifest.

    Returns:
        clips a task, by its short name.

    Raises:
        ValueError: an unknown task, a manifest that is not in order, one that ``out`` would replace, or two manifests
            of a task that share an id. FileNotFoundError: no such manifest.
    """
    sources: list[tuple[str, Path]] = []
    for task, manifest in parts:
        sources.append((find_task(task, f"{task}={manifest}").name, manifest))
        if os.path.realpath(manifest) == os.path.realpath(out):
            raise ValueError(f"{out}: is to be read and written; give the mixed manifest a name of its own")
    count: Counter[str] = Counter()
    seen: dict[str, Path] = {}
    folder = os.path.abspath(out.parent)
    with replacing(out) as mixed, ProgressBar("mixing", 0, "clips", visible) as bar:
        for task, source in sources:
            for clip in iter_manifest(source):
                name = f"{task}:{clip.id}"
                if name in seen:
                    raise ValueError(f"{source}: clip {clip.id!r} is in {seen[name]} too; leave it out of one of them")
                seen[name] = source
                mixed.write(manifest_line(replace(clip, id=name, tasks=(task,)), folder))
                count[task] += 1
                bar.advance(note=task)
    return count
