"""Rewards by name: registering them, and building them from configuration.

A spec is a name, or a mapping with a name and parameters; a parameter that is itself a reward is a spec again:

    adaptive
    {name: adaptive, main: {name: eb_f1, onset_collar: 0.1}, aux: miou}

A name is a registered one, an entry point of the group ``timepro.rewards``, or an import path ``module:object``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import numpy as np

from rewards.group import Group, Reward

ENTRY_POINT_GROUP = "timepro.rewards"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Entry:
    target: Callable[..., Any]
    children: tuple[str, ...]
    place: str  # module:line


_registry: dict[str, _Entry] = {}


def register(name: str, children: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Register a reward under a name. Raises ValueError where the name is taken, naming both places.

    The target is a class whose instances are rewards, a factory that returns one, or a plain function whose first
    parameter is called ``group``; its other parameters become settings. ``children`` names the parameters that are
    reward specs themselves: one spec, or a list of mappings that each hold one under the key ``reward``.
    """
    caller = sys._getframe(1)
    place = f"{caller.f_globals.get('__name__', '?')}:{caller.f_lineno}"

    def decorate(target: F) -> F:
        taken = _registry.get(name)
        # The same place again is a module that is reloaded, not a second reward.
        if taken and taken.place != place:
            raise ValueError(
                f"reward {name!r} is registered twice: at {taken.place} and at {place}; rename one of them"
            )
        _registry[name] = _Entry(target, tuple(children), place)
        return target

    return decorate


def available_rewards() -> list[str]:
    """Names that can stand in a configuration: registered rewards and installed entry points, sorted."""
    return sorted(_registry.keys() | _entry_points().keys())


class BuiltReward:
    """A reward as configured: checks what it returns and records it in ``group.parts`` under its name.

    part_names: every name that it and the rewards below it can record.
    """

    def __init__(self, name: str, reward: Reward, spec: dict[str, Any]) -> None:
        self.name = name
        self.reward = reward
        self.spec = spec
        self.part_names: tuple[str, ...] = (name,)

    def __call__(self, group: Group) -> np.ndarray:
        """Values (G,) float64. Raises ValueError, naming reward and clip, for another shape or a value not finite."""
        where = f"reward {self.name!r} on clip {group.clip_id!r}"
        expected = (len(group.completions),)
        try:
            values = np.array(self.reward(group), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        if values.shape != expected:
            raise ValueError(f"{where}: returned shape {values.shape}, expected {expected}, one value a completion")
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"{where}: value {values[bad]} for completion {bad} is not finite")
        group.parts[self.name] = values.copy()
        return values

    def __repr__(self) -> str:
        return f"BuiltReward({self.spec})"


def build_reward(spec: Any, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> BuiltReward:
    """Build a reward from its spec: a name, a mapping (plain or an OmegaConf node), nested as deep as needed.

    ``as: other`` in a mapping renames the part that is recorded. defaults: reward name -> parameters that apply
    wherever a spec of that name does not set them. Raises ValueError for an unknown name or parameter (with the
    valid ones), a missing parameter, and two different parts that would be recorded under one name.
    """
    seen: dict[str, Any] = {}
    built = _build(_plain(spec), _plain(defaults or {}), seen, "rewards")
    built.part_names = tuple(sorted(seen))
    return built


def _build(spec: Any, defaults: Mapping[str, Mapping[str, Any]], seen: dict[str, Any], where: str) -> BuiltReward:
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError(f"{where}: expected a reward's name or a mapping with the key 'name', got {spec!r}")
    name = spec["name"]
    entry = _find(name, where)
    settings = {key: value for key, value in spec.items() if key not in ("name", "as")}
    settings = {**defaults.get(name, {}), **settings}
    _check_settings(entry, name, settings, where)
    part = spec.get("as") or name.rpartition(":")[2]
    if seen.setdefault(part, spec) != spec:
        raise ValueError(
            f"{where}: two different rewards are recorded as {part!r}: {seen[part]} and {spec}; "
            "give one of them another name with 'as: NAME'"
        )
    built = dict(settings)
    for child in entry.children:
        if child in built:
            built[child] = _build_child(built[child], defaults, seen, f"{where}.{child}")
        elif isinstance(default := _parameters(entry.target)[child].default, (str, dict)):
            built[child] = _build(default, defaults, seen, f"{where}.{child}")
    try:
        reward = _instantiate(entry.target, built)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: cannot build reward {name!r} with {settings}: {error}") from error
    if not callable(reward):
        raise ValueError(f"{where}: {name!r} ({entry.place}) gave {type(reward).__name__}, which is not callable")
    return BuiltReward(part, reward, spec)


def _build_child(value: Any, defaults: Mapping[str, Any], seen: dict[str, Any], where: str) -> Any:
    if not isinstance(value, list):
        return _build(value, defaults, seen, where)
    terms = []
    for index, term in enumerate(value):
        here = f"{where}[{index}]"
        if not isinstance(term, dict) or "reward" not in term:
            raise ValueError(f"{here}: expected a mapping with the key 'reward', got {term!r}")
        terms.append({**term, "reward": _build(term["reward"], defaults, seen, f"{here}.reward")})
    return terms


# ---------------------------------------------------------------- names and parameters


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _find(name: str, where: str) -> _Entry:
    if name in _registry:
        return _registry[name]
    if point := _entry_points().get(name):
        return _loaded(name, point.load(), f"entry point {point.value}")
    if ":" in name:
        return _loaded(name, _import(name, where), name)
    known = available_rewards()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"{where}: unknown reward {name!r}.{hint} Available: {', '.join(known)}; "
        "a reward of your own is named by its import path 'module:object'"
    )


def _loaded(name: str, target: Any, place: str) -> _Entry:
    """An entry for an imported object; one that registered itself on import keeps its declared children."""
    for entry in _registry.values():
        if entry.target is target:
            return entry
    if not callable(target):
        raise ValueError(f"reward {name!r} is a {type(target).__name__}, expected a class, factory or function")
    return _Entry(target, (), place)


def _import(path: str, where: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"{where}: cannot import module {module_name!r} of reward {path!r}: {error}; is it on PYTHONPATH?"
        ) from error
    if not hasattr(module, attribute):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{where}: module {module_name!r} has no {attribute!r}; it has: {', '.join(callables)}")
    return getattr(module, attribute)


def _takes_group(target: Callable[..., Any]) -> bool:
    return not inspect.isclass(target) and next(iter(inspect.signature(target).parameters), None) == "group"


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(target).parameters)
    if _takes_group(target):
        parameters.pop("group")
    return parameters


def _instantiate(target: Callable[..., Any], settings: dict[str, Any]) -> Any:
    return functools.partial(target, **settings) if _takes_group(target) else target(**settings)


def _check_settings(entry: _Entry, name: str, settings: dict[str, Any], where: str) -> None:
    parameters = _parameters(entry.target)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    valid = ", ".join(parameters) or "none"
    for key in settings:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{where}: reward {name!r} has no parameter {key!r}.{hint} Valid parameters: {valid} (and 'as')"
            )
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in settings]
    if missing:
        raise ValueError(f"{where}: reward {name!r} needs {', '.join(missing)}. Valid parameters: {valid} (and 'as')")


def _plain(spec: Any) -> Any:
    """Plain dicts and lists from an OmegaConf node (interpolations resolved) or from nested mappings."""
    if type(spec).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(spec, resolve=True)
    if isinstance(spec, Mapping):
        return {key: _plain(value) for key, value in spec.items()}
    return [_plain(value) for value in spec] if isinstance(spec, (list, tuple)) else spec
