"""Rewards by name: registering them, and building them from configuration.

A spec is a name, or a mapping with a name and parameters; a parameter that is itself a reward is a spec again:

    adaptive
    {name: adaptive, main: {name: eb_f1, onset_collar: 0.1}, aux: miou}

Any reward's mapping may also hold ``as`` (another name for what is recorded), ``on_error`` and, for a slow one,
``timeout_s`` and ``processes``; ``slow: true`` makes it one. See `rewards.built.FailurePolicy`.

A name is a registered one, an entry point of the group ``timepro.rewards``, or an import path ``module:object``.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rewards.built import BuiltReward, FailurePolicy
from rewards.pool import Job
from timepro.plugins import did_you_mean, import_object, installed, load
from timepro.tasks.registry import outside_tasks

__all__ = ["BuiltReward", "available_rewards", "build_reward", "register"]

ENTRY_POINT_GROUP = "timepro.rewards"
EVERY_PARAMETER = ("*",)
"""For `children`: all parameters are reward specs, whatever they are called."""
_POLICY = ("slow", "timeout_s", "processes", "on_error")
_RESERVED = ("name", "as", *_POLICY)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Entry:
    target: Callable[..., Any]
    children: tuple[str, ...]
    place: str  # module:line
    slow: bool = False
    per_completion: bool = False
    module: str = ""  # that registers it, which a worker imports first


_registry: dict[str, _Entry] = {}


def register(
    name: str, children: tuple[str, ...] = (), slow: bool = False, per_completion: bool = False
) -> Callable[[F], F]:
    """Register a reward under a name. Raises ValueError where the name is taken, naming both places.

    The target is a class whose instances are rewards, a factory that returns one, or a plain function whose first
    parameter is called ``group``; its other parameters become settings. ``children`` names the parameters that are
    reward specs themselves (`EVERY_PARAMETER`: all): one spec, or a list of mappings that each hold one under the key
    ``reward``.

    ``slow``: runs in worker processes with a time limit. ``per_completion``: the value of a completion does not depend
    on the others in its group, so that a failure is put down to the completions that cause it and not to all.
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
        clash = [key for key in _parameters(target) if key in _RESERVED]
        if clash:
            raise ValueError(
                f"reward {name!r} at {place}: {', '.join(clash)} cannot be a parameter, it is every reward's"
            )
        module = caller.f_globals.get("__name__", "")
        _registry[name] = _Entry(target, tuple(children), place, slow, per_completion, module)
        return target

    return decorate


def available_rewards() -> list[str]:
    """Names that can stand in a configuration: registered rewards and installed entry points, sorted."""
    return sorted(_registry.keys() | installed(ENTRY_POINT_GROUP).keys())


@dataclass
class _Build:
    """What one call of `build_reward` knows. seen: part name -> the spec that is recorded under it."""

    defaults: Mapping[str, Mapping[str, Any]]
    inline: bool
    seen: dict[str, Any] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)


def build_reward(
    spec: Any, defaults: Mapping[str, Mapping[str, Any]] | None = None, inline: bool = False
) -> BuiltReward:
    """Build a reward from its spec: a name, a mapping nested as deep as needed.

    ``as: other`` in a mapping renames the part that is recorded. defaults: reward name -> parameters that apply
    wherever a spec of that name does not set them. inline: slow rewards run in this process, as workers do it.
    Raises ValueError for an unknown name or parameter (with the valid ones), a missing parameter, and two different
    parts that would be recorded under one name.
    """
    built = _build(_plain(spec), _Build(_plain(defaults or {}), inline), "rewards")
    built.root = True
    return built


def _build(spec: Any, build: _Build, where: str) -> BuiltReward:
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError(f"{where}: expected a reward's name or a mapping with the key 'name', got {spec!r}")
    name = spec["name"]
    entry = _find(name, where)
    settings = {**build.defaults.get(name, {}), **spec}
    policy = _policy(entry, settings, where)
    settings = {key: value for key, value in settings.items() if key not in _RESERVED}
    _check_settings(entry, name, settings, where)
    part = spec.get("as") or name.rpartition(":")[2]
    if build.seen.setdefault(part, spec) != spec:
        raise ValueError(
            f"{where}: two different rewards are recorded as {part!r}: {build.seen[part]} and {spec}; "
            "give one of them another name with 'as: NAME'"
        )
    build.modules.add(entry.module)
    arguments, children = _arguments(entry, settings, build, where)
    try:
        reward = _instantiate(entry.target, arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: cannot build reward {name!r} with {settings}: {error}") from error
    if not callable(reward):
        raise ValueError(f"{where}: {name!r} ({entry.place}) gave {type(reward).__name__}, which is not callable")
    job = _job(part, spec, policy, children, build, where) if policy.slow and not build.inline else None
    return BuiltReward(part, reward, spec, policy, entry.per_completion, tuple(children), job)


def _arguments(
    entry: _Entry, settings: dict[str, Any], build: _Build, where: str
) -> tuple[dict[str, Any], list[BuiltReward]]:
    """The target's arguments, with rewards in the place of their specs, and those rewards."""
    arguments, children = dict(settings), []
    for child in list(settings) if entry.children == EVERY_PARAMETER else entry.children:
        value = arguments[child] if child in arguments else _parameters(entry.target)[child].default
        if isinstance(value, list):
            terms = arguments[child] = [_term(term, build, f"{where}.{child}[{i}]") for i, term in enumerate(value)]
            children += [term["reward"] for term in terms]
        elif child in arguments or isinstance(value, (str, dict)):
            arguments[child] = _build(value, build, f"{where}.{child}")
            children.append(arguments[child])
    return arguments, children


def _term(term: Any, build: _Build, where: str) -> dict[str, Any]:
    if not isinstance(term, dict) or "reward" not in term:
        raise ValueError(f"{where}: expected a mapping with the key 'reward', got {term!r}")
    return {**term, "reward": _build(term["reward"], build, f"{where}.reward")}


def _policy(entry: _Entry, settings: Mapping[str, Any], where: str) -> FailurePolicy:
    given = {key: settings[key] for key in _POLICY if key in settings}
    try:
        policy = FailurePolicy(**{"slow": entry.slow, **given})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not policy.slow and (idle := [key for key in ("timeout_s", "processes") if key in given]):
        raise ValueError(f"{where}: {', '.join(idle)} is for slow rewards; add 'slow: true' to run it in a worker")
    return policy


def _job(
    part: str, spec: dict[str, Any], policy: FailurePolicy, children: list[BuiltReward], build: _Build, where: str
) -> Job:
    for node in (node for child in children for node in child.nodes()):
        if idle := [key for key in ("slow", "timeout_s", "processes") if key in node.spec]:
            raise ValueError(
                f"{where}: a slow reward's parts run with it in one worker; remove {', '.join(idle)} there"
            )
    if "__main__" in build.modules:
        raise ValueError(f"{where}: a slow reward must be defined in a module that a worker process can import")
    modules = tuple(sorted(build.modules - {""}))
    key = json.dumps([part, spec], sort_keys=True, default=repr)
    return Job(key, spec, dict(build.defaults), modules, tuple(outside_tasks()), policy.timeout_s)


# ---------------------------------------------------------------- names and parameters


def _find(name: str, where: str) -> _Entry:
    if name in _registry:
        return _registry[name]
    if point := installed(ENTRY_POINT_GROUP).get(name):
        return _loaded(name, load(point, where), f"entry point {point.value}")
    if ":" in name:
        return _loaded(name, import_object(name, "reward", where), name)
    known = available_rewards()
    raise ValueError(
        f"{where}: unknown reward {name!r}.{did_you_mean(name, known)} Available: {', '.join(known)}; "
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
            raise ValueError(
                f"{where}: reward {name!r} has no parameter {key!r}.{did_you_mean(key, parameters)} "
                f"Valid parameters: {valid} (and 'as')"
            )
    missing = [key for key, value in parameters.items() if value.default is value.empty and key not in settings]
    if missing:
        raise ValueError(f"{where}: reward {name!r} needs {', '.join(missing)}. Valid parameters: {valid} (and 'as')")


def _plain(spec: Any) -> Any:
    """Plain dicts and lists from nested mappings and sequences, OmegaConf's among them."""
    if isinstance(spec, Mapping):
        return {key: _plain(value) for key, value in spec.items()}
    return [_plain(value) for value in spec] if isinstance(spec, Sequence) and not isinstance(spec, str) else spec
