"""Experiments: a YAML file with its bases, `key=value` overrides, checked against structured dataclasses.

Each part of the project declares the settings it reads as a dataclass beside its code; the whole is put together by
whoever runs it. A key that no dataclass has is an error that lists near names.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from timepro.system.files import write_text

T = TypeVar("T")
BASE_KEY = "base"
SPEC_KEY = "rewards"


def list_experiments(folder: Path) -> list[str]:
    """Names that `EXP=` takes: YAML files below `folder`, but for `base/`, `sweeps/` and `benchmarks/`."""
    names = []
    for path in sorted(folder.rglob("*.yaml")):
        relative = path.relative_to(folder)
        if relative.parts[0] not in ("base", "sweeps", "benchmarks"):
            names.append(str(relative.with_suffix("")))
    return names


def load_experiment(name: str, overrides: Sequence[str], schema: type[T], folder: Path) -> T:
    """Resolve an experiment to an instance of `schema`.

    Args:
        name: file name below `folder`, without `.yaml`.
        overrides: `key.path=value`, YAML values.
        schema: dataclass of the whole configuration.

    Raises:
        ValueError: an unknown experiment or key (with near names), a bad value, or a malformed override.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = list_experiments(folder)
        raise ValueError(f"there is no experiment {name!r}{_near(name, known)}; experiments: {', '.join(known)}")
    values = _read_with_bases(path, folder, ())
    values.setdefault("name", name.replace("/", "-"))
    check_keys(values, schema, str(path))
    merged = OmegaConf.create(values)
    for override in overrides:
        parsed = _parse_override(override, schema)
        whole = override.partition("=")[0].strip() == SPEC_KEY  # `rewards.epsilon=...` changes one of its parameters
        merged = _merge_replacing_specs(merged, parsed) if whole else OmegaConf.merge(merged, parsed)
    try:
        resolved = OmegaConf.merge(OmegaConf.structured(schema), merged)
        return typing.cast(T, OmegaConf.to_object(resolved))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        raise ValueError(f"{path}: key {key}: {str(error).splitlines()[0]}") from error


def check_keys(values: Mapping[str, Any], schema: type, where: str, prefix: str = "") -> None:
    """Refuse keys that no dataclass declares.

    Raises:
        ValueError: naming the key, its place, and near names.
    """
    fields = {f.name: f for f in dataclasses.fields(schema)}
    hints = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in fields:
            near = _near(str(key), list(fields), prefix)
            known = ", ".join(sorted(prefix + name for name in fields))
            raise ValueError(f"{where}: unknown key {prefix}{key}{near}; keys here: {known}")
        if not isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            inside = ", ".join(f.name for f in dataclasses.fields(typing.cast(type, hints[key])))
            raise ValueError(f"{where}: key {prefix}{key}: {value!r} is no section; it holds {inside}")
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            check_keys(value, typing.cast(type, hints[key]), where, f"{prefix}{key}.")


def save_resolved(config: Any, path: Path) -> None:
    """Write a resolved configuration as YAML, atomically."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def load_resolved(path: Path, schema: type[T]) -> T:
    """Read what `save_resolved` wrote."""
    return typing.cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path))))


def _read_with_bases(path: Path, folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ValueError(f"{path}: bases form a circle: {' -> '.join(str(p) for p in (*seen, path))}")
    if not path.is_file():
        raise ValueError(f"{seen[-1] if seen else path}: its base {path} does not exist")
    try:
        # OmegaConf's reader, not YAML's own: the latter takes 1e-6 for a string.
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: an experiment is a mapping of keys, not {type(values).__name__}")
    bases = values.pop(BASE_KEY, [])
    merged: Any = OmegaConf.create({})
    for base in [bases] if isinstance(bases, str) else bases:
        merged = OmegaConf.merge(merged, _read_with_bases(folder / f"{base}.yaml", folder, (*seen, path)))
    return typing.cast(dict[str, Any], OmegaConf.to_container(_merge_replacing_specs(merged, values)))


def _merge_replacing_specs(base: Any, values: Mapping[str, Any]) -> Any:
    # A reward is one whole: parameters of the base's reward make no sense beside another reward's name.
    if SPEC_KEY in values and SPEC_KEY in base:
        del base[SPEC_KEY]
    return OmegaConf.merge(base, values)


def _parse_override(text: str, schema: type) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"override {text!r} is not of the form key=value, for example grpo.max_steps=5")
    try:
        parsed = OmegaConf.to_container(OmegaConf.create(f"value: {value}" if value else "value: ''"))["value"]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"override {text!r}: the value is not valid YAML: {error}") from error
    nested: Any = parsed
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    check_keys(nested, schema, f"override {text!r}")
    return typing.cast(dict[str, Any], nested)


def _near(name: str, known: Sequence[str], prefix: str = "") -> str:
    matches = [prefix + match for match in difflib.get_close_matches(name, known, n=3, cutoff=0.6)]
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
