"""Sweeps: files in W&B's own format, and the trials they stand for.

    name: sed_seeds
    method: grid
    command: ["${env}", timepro, train, sed_grpo, --sweep, sed_seeds, "${args_no_hyphens}"]
    parameters:
      seed: {values: [0, 1, 2]}
      grpo.groups.temperature: {values: [0.7, 1.0]}

With a login such a file is a sweep of W&B's, which gives every agent its next trial. Without one the same file is
expanded here: `grid` to all combinations, `random` to `run_cap` draws. Either way a trial is a call of the command
with `key=value` for each parameter, so names, groups and metrics are the same.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

_KEYS = {"name", "description", "program", "project", "entity", "method", "metric", "command", "parameters", "run_cap"}
_DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "log_uniform_values")
ARGUMENTS = "${args_no_hyphens}"
PLACES = ("name", "runs", "learner", "rollout", "sync", "wandb")
"""Settings that say where and how a trial runs, not what it is: they are no part of its name."""
_LONGEST = 80  # characters of a trial's name


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: the settings that make it, and the name that follows from them."""

    settings: tuple[tuple[str, Any], ...]

    @property
    def arguments(self) -> list[str]:
        """`key=value` as the command line takes them."""
        return [f"{key}={_shown(value)}" for key, value in self.settings]


@dataclass(frozen=True)
class Sweep:
    """A sweep's file: `raw` as W&B takes it, `command` up to where a trial's arguments stand."""

    name: str
    path: Path
    raw: Mapping[str, Any]
    command: tuple[str, ...]


def trial_name(words: Sequence[str]) -> str:
    """A folder name for a trial, from the `key=value` words of its command that say what it is, in any order.

    Long ones are cut and told apart by a digest.
    """
    pairs = [word for word in words if "=" in word and not word.startswith("-")]
    whole = ",".join(pair for pair in sorted(pairs) if re.split("[.=]", pair)[0] not in PLACES) or "defaults"
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", whole).strip("_")
    if len(name) <= _LONGEST and name == whole:
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep's file.

    Raises:
        ValueError: naming the file, the key and what is wrong. FileNotFoundError: no such file.
    """
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.stem, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise FileNotFoundError(f"there is no sweep {path}{hint}; sweeps: {', '.join(known) or 'none'}")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: a sweep is a mapping of keys, not {type(raw).__name__}")
    for key in raw.keys() - _KEYS:
        near = difflib.get_close_matches(str(key), _KEYS, n=1)
        raise ValueError(f"{path}: unknown key {key!r}{f' (did you mean {near[0]}?)' if near else ''}")
    for key in ("method", "command", "parameters"):
        if not raw.get(key):
            raise ValueError(f"{path}: missing key {key!r}")
    command = list(map(str, raw["command"])) if isinstance(raw["command"], list) else []
    if ARGUMENTS not in command:
        raise ValueError(f"{path}: key 'command': a list with {ARGUMENTS!r} where a trial's key=value arguments go")
    return Sweep(str(raw.get("name") or path.stem), path, raw, tuple(command))


def expand(sweep: Sweep, seed: int = 0) -> list[Trial]:
    """The trials of a sweep that is run here, in a fixed order.

    Args:
        seed: of the draws of `method: random`.

    Raises:
        ValueError: a method or a parameter that only W&B itself can serve.
    """
    parameters = _parameters(sweep)
    method = sweep.raw["method"]
    if method == "grid":
        axes = [[(key, value) for value in _grid_values(sweep, key, spec)] for key, spec in parameters.items()]
        trials = [Trial(tuple(settings)) for settings in itertools.product(*axes)]
        return trials[: sweep.raw.get("run_cap") or None]
    if method == "random":
        cap = sweep.raw.get("run_cap")
        if not isinstance(cap, int) or cap < 1:
            raise ValueError(f"{sweep.path}: method random needs run_cap, the number of trials")
        rng = np.random.default_rng(seed)
        return [
            Trial(tuple((key, _draw(sweep, key, spec, rng)) for key, spec in parameters.items())) for _ in range(cap)
        ]
    raise ValueError(
        f"{sweep.path}: method {method!r} needs W&B's own server: log in (wandb login), or use grid or random"
    )


def _parameters(sweep: Sweep) -> dict[str, Mapping[str, Any]]:
    found = {}
    for key, spec in dict(sweep.raw["parameters"]).items():
        if not isinstance(spec, Mapping) or not spec:
            raise ValueError(f"{sweep.path}: parameter {key}: expected value, values, or a distribution; got {spec!r}")
        if "parameters" in spec:
            raise ValueError(f"{sweep.path}: parameter {key}: write nested settings with dots, as in grpo.max_steps")
        found[str(key)] = spec
    return found


def _distribution(sweep: Sweep, key: str, spec: Mapping[str, Any]) -> str:
    named = spec.get("distribution")
    if named is None:
        if "value" in spec:
            return "constant"
        if "values" in spec:
            return "categorical"
        both_whole = all(isinstance(spec.get(k), int) for k in ("min", "max"))
        return "int_uniform" if both_whole else "uniform"
    if named not in _DISTRIBUTIONS:
        raise ValueError(
            f"{sweep.path}: parameter {key}: distribution {named!r} is not drawn here; there are "
            f"{', '.join(_DISTRIBUTIONS)}"
        )
    return str(named)


def _grid_values(sweep: Sweep, key: str, spec: Mapping[str, Any]) -> list[Any]:
    kind = _distribution(sweep, key, spec)
    if kind == "constant":
        return [spec["value"]]
    if kind == "categorical" and isinstance(spec["values"], list) and spec["values"]:
        return list(spec["values"])
    if kind == "int_uniform":
        low, high = _range(sweep, key, spec)
        return list(range(int(low), int(high) + 1))
    raise ValueError(f"{sweep.path}: parameter {key}: a grid needs value, values, or whole min and max")


def _draw(sweep: Sweep, key: str, spec: Mapping[str, Any], rng: np.random.Generator) -> Any:
    kind = _distribution(sweep, key, spec)
    if kind in ("constant", "categorical"):
        values = _grid_values(sweep, key, spec)
        return values[int(rng.integers(len(values)))]
    low, high = _range(sweep, key, spec)
    if kind == "int_uniform":
        return int(rng.integers(int(low), int(high) + 1))
    if kind == "uniform":
        return float(rng.uniform(low, high))
    if low <= 0:
        raise ValueError(f"{sweep.path}: parameter {key}: min {low} of a logarithmic range must be above 0")
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _range(sweep: Sweep, key: str, spec: Mapping[str, Any]) -> tuple[float, float]:
    low, high = spec.get("min"), spec.get("max")
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (low, high)) or low > high:
        raise ValueError(f"{sweep.path}: parameter {key}: expected value, values, or min and max with min <= max")
    return low, high


def _shown(value: Any) -> str:
    """As W&B's agent writes it, and as a `key=value` override reads it."""
    return value if isinstance(value, str) else json.dumps(value)
