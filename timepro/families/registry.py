"""Finds the families: the modules of this package, and classes that other packages name in their entry points."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from timepro.families.base import ModelFamily
from timepro.plugins import did_you_mean, load

ENTRY_POINT_GROUP = "timepro.families"


@functools.cache
def all_families() -> tuple[ModelFamily, ...]:
    """Every family, in the order of their names.

    Raises:
        ValueError: a class that is not a complete family, an entry point that cannot be loaded, or two families with
            the same name, model type or architecture; with the places.
    """
    taken: dict[tuple[str, str], str] = {}
    found = []
    for place, candidate in (*_own(), *_installed()):
        family = _checked(candidate, place)
        claims = {("name", family.name), ("architecture", family.vllm_architecture)}
        claims |= {("model type", kind) for kind in (family.model_type, *family.source_types)}
        for claim in sorted(claims):
            if claim in taken:
                raise ValueError(f"two families have the {claim[0]} {claim[1]!r}: {taken[claim]} and {place}")
            taken[claim] = place
        found.append(family)
    return tuple(sorted(found, key=lambda family: family.name))


def family_named(name: str, key: str) -> ModelFamily:
    """The family of a name, which stands in the configuration under `key`.

    Raises:
        ValueError: no family has the name; with the names that there are.
    """
    families = {family.name: family for family in all_families()}
    if name not in families:
        hint = did_you_mean(name, families)
        raise ValueError(f"{key} is {name!r}; it must be one of {', '.join(families)}.{hint}")
    return families[name]


def family_of(folder: str | Path, source: bool = False) -> ModelFamily:
    """The family of a checkpoint folder, by its `config.json`.

    Args:
        source: accept what `timepro init-model` can read, too (a thinker alone, for example).

    Raises:
        ValueError: no such folder, no configuration, or a family that is not supported.
    """
    families = {name: f for f in all_families() for name in (f.source_types if source else (f.model_type,))}
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a checkpoint folder: {path.name} is missing; give a folder written by this project"
        )
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); the checkpoint is damaged") from error
    if model_type not in families:
        raise ValueError(
            f"{path}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(families))}"
        )
    return families[model_type]


def outside_sources() -> list[Path]:
    """The files of the families of other packages, sorted: what a checkpoint depends on beside this project's code."""
    package = __name__.rpartition(".")[0]
    outside = [type(family) for family in all_families() if not type(family).__module__.startswith(f"{package}.")]
    return sorted({Path(inspect.getfile(family)) for family in outside})


def _own() -> Iterator[tuple[str, Any]]:
    """The families in this package's modules, with where they are."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], f"{package}."):
        if module.ispkg:
            continue
        for value in vars(importlib.import_module(module.name)).values():
            defined_here = isinstance(value, type) and value.__module__ == module.name
            if defined_here and issubclass(value, ModelFamily) and value is not ModelFamily:
                yield f"{module.name}.{value.__name__}", value


def _installed() -> Iterator[tuple[str, Any]]:
    """What other packages name as families, with where it is."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        yield f"entry point {point.name} = {point.value}", load(point, "families")


def _checked(candidate: Any, place: str) -> ModelFamily:
    """An instance of a family's class.

    Raises:
        ValueError: it is not a subclass of `ModelFamily`, or lacks methods or attributes.
    """
    if not (isinstance(candidate, type) and issubclass(candidate, ModelFamily)):
        raise ValueError(f"{place} is not a model family; it must be a subclass of timepro.families.ModelFamily")
    missing = sorted(candidate.__abstractmethods__) if inspect.isabstract(candidate) else []
    missing += [name for name in ModelFamily.__annotations__ if not hasattr(candidate, name)]
    if missing:
        raise ValueError(f"{place} is not a complete model family; it lacks {', '.join(missing)}")
    return candidate()
