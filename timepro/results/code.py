"""The code and the machine behind a result: what says whether two results were made alike."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from timepro.families.registry import outside_sources
from timepro.system.device import gpu_names
from timepro.system.source import import_closure, module_file

# What decides a trial's numbers, with all that it imports: data, models, both jobs, rewards, a worker's side, scores.
# Families, tasks, rewards and what vLLM loads are found by name at run time, so no import leads to them.
TRAINED_BY = (
    "timepro.data.synth", "timepro.data.soundbank", "timepro.tiny", "timepro.families", "timepro.tasks",
    "trainer.learner.sft_job", "trainer.learner.grpo_job", "rewards", "rollout.plugin", "rollout.serve",
    "rollout.vllm_models", "rollout.receiver", "rollout.adapters", "rollout.serving", "rollout.clip_features",
    "rollout.evaluation", "timepro.conditions",
)  # fmt: skip
# Alone: of the launcher only the order and the inputs of the stages count, and what is asked again.
_STAGES = ("trainer.launcher.pipeline", "trainer.launcher.conditions")
_OUTSIDE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*")  # an import path, module:object
_PARTS = "+"  # between the digests of a run that another code has resumed


def code_digest(settings: Mapping[str, Any]) -> str:
    """A short name for all code that decides a trial's numbers.

    Args:
        settings: the trial's; what they name by import path (`module:object`) counts, too.
    """
    stages = [path for name in _STAGES if (path := module_file(name)) is not None]
    files = [*import_closure(*TRAINED_BY), *stages, *outside_sources(), *_named(settings)]
    h = hashlib.sha256()
    for path in files:
        h.update(path.read_bytes())
    return h.hexdigest()[:12]


def with_code(recorded: str, now: str) -> str:
    """The digest of a run's code after a resume: both, where it has changed meanwhile."""
    return recorded if now in recorded.split(_PARTS) else f"{recorded}{_PARTS}{now}".strip(_PARTS)


def this_machine() -> dict[str, Any]:
    """What a machine is known by beside its results: processor, cores, memory, GPUs; no name and no address."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": list(gpu_names()),
    }


def shown_machine(machine: Mapping[str, Any]) -> str:
    """A machine in a few words: "2 cores of Intel Xeon", "16 cores of AMD EPYC, H100"; "unknown" of an older run.

    The processor is named, since the same trial ends elsewhere on another kind: a training carries every rounding on.
    """
    if not machine:
        return "unknown"
    gpus = list(machine["gpus"])
    counted = [f"{gpus.count(name)} x {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    return ", ".join([f"{machine['cores']} cores of {_short(machine['processor'])}", *counted])


def _short(processor: str) -> str:
    """ "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz" as "Intel Xeon Gold 6338"."""
    return " ".join(re.sub(r"\((?:R|TM)\)|\bProcessor\b|\bCPU\b|@.*", " ", processor).split())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _named(settings: Mapping[str, Any]) -> list[Path]:
    """The files of what settings name by import path; what cannot be found fails where it is imported."""
    if os.getcwd() not in sys.path:  # as `timepro.plugins.import_object`
        sys.path.append(os.getcwd())
    found: set[Path] = set()
    for text in _texts(settings):
        for match in _OUTSIDE.finditer(text):
            try:
                spec = importlib.util.find_spec(match[1])
            except (ImportError, ValueError):
                continue
            if spec is not None and spec.origin and Path(spec.origin).is_file():
                found.add(Path(spec.origin))
    return sorted(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
