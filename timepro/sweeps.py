"""Sweeps: files in W&B's own format, and the trials they stand for.

    name: sed_grpo_temperature
    method: grid
    command: ["${env}", timepro, train, sed_grpo, --sweep, sed_grpo_temperature, "${args_no_hyphens}"]
    parameters:
      seed: {values: [0, 1, 2]}
      grpo.groups.temperature: {values: [0.7, 1.0]}

With a login such a file is a sweep of W&B's, which gives every agent its next trial. Without one the same file is
expanded here: `grid` to all combinations, `random` to `run_cap` draws, equal ones once. Either way a trial is a call of
the command with `key=value` for each parameter, so names, groups and metrics are the same.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from timepro.config.keys import setting_type
from timepro.config.marks import Limits, bare, mark
from timepro.config.values import Place, compose, read_node
from timepro.hints import tool
from timepro.names import check_run_name, folder_name, near

_KEYS = {"name", "description", "program", "project", "entity", "method", "metric", "command", "parameters", "run_cap"}
_DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "log_uniform_values")
ARGUMENTS = "${args_no_hyphens}"
SEED = "seed"
EXPERIMENT = "experiment"
"""The parameter that names the experiment itself."""
NEVER_NAMED = ("name", "runs", "wandb")
"""Settings that say what a run is called and where it is kept: they cannot tell trials apart."""
PLACES = (*NEVER_NAMED, "learner", "rollout", "sync", "nodes")
"""Settings that, given for all trials of a sweep, say where and how they run: they are no part of a trial's name."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        settings: what makes it, in the order of the file.
        constant: keys that have the same value in every trial of the sweep.
    """

    settings: tuple[tuple[str, Any], ...]
    constant: frozenset[str] = frozenset()

    @property
    def arguments(self) -> list[str]:
        """`key=value` as the command line takes them."""
        return [f"{key}={_shown(value)}" for key, value in self.settings]

    @property
    def naming(self) -> list[str]:
        """The arguments that tell it from the sweep's other trials."""
        return [word for word in self.arguments if _key(word) not in self.constant]


@dataclass(frozen=True)
class Sweep:
    """A sweep's file: `raw` as W&B takes it, `command` up to where a trial's arguments stand."""

    name: str
    path: Path
    raw: Mapping[str, Any]
    command: tuple[str, ...]
    schema: type | None = field(default=None, repr=False)

    @property
    def constant(self) -> frozenset[str]:
        """Parameters with one value."""
        return frozenset(
            key for key, spec in self.raw["parameters"].items() if "value" in spec or len(spec.get("values", ())) == 1
        )


def trial_name(words: Sequence[str]) -> str:
    """A folder name for a trial, from the `key=value` words of its command in any order: all but where it is kept."""
    pairs = [word for word in words if "=" in word and not word.startswith("-")]
    named = [pair for pair in pairs if re.split("[.=]", pair)[0] not in NEVER_NAMED]
    return folder_name(named) if named else "defaults"


def naming_words(words: Sequence[str], sweep: Sweep | None) -> list[str]:
    """Those `key=value` words of a trial's command that name it.

    Args:
        sweep: the file of the sweep. Its parameters name a trial where they vary; settings that all trials are given
            beside them do so unless they are `PLACES`. Without it every word counts.
    """
    pairs = [word for word in words if "=" in word and not word.startswith("-")]
    if sweep is None:
        return pairs

    def names_it(pair: str) -> bool:
        if _key(pair) in sweep.raw["parameters"]:
            return _key(pair) not in sweep.constant
        return re.split("[.=]", pair)[0] not in PLACES

    return [pair for pair in pairs if names_it(pair)]


def find_sweep(name: str, folders: Sequence[Path]) -> Path:
    """The file of a sweep: below one of the folders of experiments by name, or a path.

    Raises:
        ValueError: no such sweep, with near names.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        if Path(name).is_file():
            return Path(name)
    else:
        for folder in folders:
            if (folder / "sweeps" / f"{name}.yaml").is_file():
                return folder / "sweeps" / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in (folder / "sweeps").glob("*.yaml")})
    hint = near(Path(name).stem, known)
    raise ValueError(f"there is no sweep {name}{hint}; sweeps: {', '.join(known) or 'none'}")


def read_sweep(path: Path, schema: type | None = None) -> Sweep:
    """Read and check a sweep's file.

    Args:
        schema: dataclass of the whole configuration; the parameters of a sweep over `timepro train` are checked
            against it, and their values have the types of their settings.

    Raises:
        ValueError: naming the file, the line, the key and what is wrong.
    """
    place = Place(str(path), schema or object)
    node = compose(path.read_text(encoding="utf-8"), place)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{path}: a sweep is a mapping of keys")
    nodes = {key.value: (key, value) for key, value in node.value}
    for key, (where, _) in nodes.items():
        if key not in _KEYS:
            raise place.fault(f"unknown key {key!r}{near(key, _KEYS)}", where)
    raw = read_node(node, Any, place)
    for key in ("method", "command", "parameters"):
        if not raw.get(key):
            raise ValueError(f"{path}: missing key {key!r}")
    command = tuple(map(str, raw["command"])) if isinstance(raw["command"], list) else ()
    if ARGUMENTS not in command:
        raise ValueError(f"{path}: key 'command': a list with {ARGUMENTS!r} where a trial's key=value arguments go")
    name = read_node(nodes["name"][1], str, place.at("name")) if "name" in nodes else path.stem
    check_run_name(name)
    ours = schema if {"timepro", "train"} <= set(command) else None
    raw["parameters"] = dict(_parameters(nodes["parameters"][1], place.at("parameters"), ours))
    return Sweep(name, path, raw, command, ours)


def expand(sweep: Sweep, seed: int = 0) -> list[Trial]:
    """The trials of a sweep that is run here, in a fixed order, no two alike.

    A grid takes all trials of one seed before those of the next, wherever `seed` stands in the file: a study that is
    not finished yet has then something to say on all of its arms.

    Args:
        seed: of the draws of `method: random`.

    Raises:
        ValueError: a method or a parameter that only W&B itself can serve.
    """
    parameters, cap = sweep.raw["parameters"], sweep.raw.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise ValueError(f"{sweep.path}: run_cap is {cap!r}; it must be a whole number of at least 1")
    method = sweep.raw["method"]
    if method == "grid":
        axes = [[(key, value) for value in _grid_values(sweep, key, spec)] for key, spec in parameters.items()]
        drawn: list[tuple[tuple[str, Any], ...]] = list(itertools.product(*axes))
        seeds = list(dict.fromkeys(dict(settings).get(SEED) for settings in drawn))
        drawn.sort(key=lambda settings: seeds.index(dict(settings).get(SEED)))
    elif method == "random":
        if cap is None:
            raise ValueError(f"{sweep.path}: method random needs run_cap, the number of trials")
        rng = np.random.default_rng(seed)
        drawn = [tuple((key, _draw(sweep, key, spec, rng)) for key, spec in parameters.items()) for _ in range(cap)]
    else:
        raise ValueError(
            f"{sweep.path}: method {method!r} needs W&B's own server: log in ({tool('wandb')} login), or use grid or "
            "random"
        )
    trials = {tuple(trial.arguments): trial for trial in (Trial(settings, sweep.constant) for settings in drawn)}
    return list(trials.values())[:cap]


def _parameters(node: yaml.Node, place: Place, schema: type | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parameters by key, their values of the type that the schema has for the key."""
    if not isinstance(node, yaml.MappingNode):
        raise place.error("expected a mapping from settings to their values", node)
    seen: set[str] = set()
    for key_node, spec_node in node.value:
        key = key_node.value
        here = place.at(key)
        if key in seen:
            raise here.error("stands here twice; remove one of them", key_node)
        seen.add(key)
        if re.split("[.]", key)[0] in NEVER_NAMED and schema is not None:
            raise here.error("cannot tell trials apart: it says what a run is called or where it is kept", key_node)
        try:
            kind = str if key == EXPERIMENT else Any if schema is None else setting_type(schema, key)
        except ValueError as error:
            raise here.fault(str(error), key_node) from None
        yield key, _parameter(spec_node, kind, here)


def _parameter(node: yaml.Node, kind: Any, place: Place) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise place.error("expected {value: ...}, {values: [...]}, or a range {min: ..., max: ...}", node)
    inside = {key.value: value for key, value in node.value}
    if "parameters" in inside:
        raise place.error("write nested settings with dots, as in grpo.max_steps", node)
    spec: dict[str, Any] = {}
    for key, value in inside.items():
        here = place.at(key)
        if key == "value":
            spec[key] = read_node(value, kind, here)
        elif key == "values":
            spec[key] = read_node(value, list[kind], here)
        else:
            spec[key] = read_node(value, Any, here)
    drawn = spec.get("distribution")
    if bare(kind) is int and drawn in ("uniform", "log_uniform_values"):
        raise place.error(f"distribution {drawn} draws fractions; a whole number takes int_uniform", node)
    limits = mark(kind, Limits)
    for key in ("min", "max"):
        if limits is not None and isinstance(spec.get(key), (int, float)) and not limits.admit(spec[key]):
            raise place.at(key).error(f"{spec[key]} is out of range; it must be {limits}", inside[key])
    return spec


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
    numbers = [x for x in (low, high) if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if len(numbers) < 2 or numbers[0] > numbers[1]:
        raise ValueError(f"{sweep.path}: parameter {key}: expected value, values, or min and max with min <= max")
    return numbers[0], numbers[1]


def _shown(value: Any) -> str:
    """As W&B's agent writes it, and as a `key=value` override reads it."""
    if isinstance(value, str):  # a quote at its start would be read as one around it
        return "'" + value.replace("'", "''") + "'" if value[:1] in ("'", '"') else value
    return json.dumps(value)


def _key(pair: str) -> str:
    return pair.partition("=")[0]
