"""Dotted keys of a schema: which there are, and which one an unknown key may mean."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import keyword
import typing
from collections.abc import Sequence
from typing import Any

from timepro.config.marks import Formerly, Spec, bare, mark


@functools.cache
def field_types(schema: type) -> dict[str, Any]:
    """A dataclass's keys and the types of their fields, marks included."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {key_of(field.name): hints[field.name] for field in dataclasses.fields(schema)}


def key_of(field: str) -> str:
    """A field's key: its name, without the `_` that keeps a word of Python's own (`continue`) from being one."""
    return field.removesuffix("_")


def field_of(key: str) -> str:
    """The field of a key."""
    return f"{key}_" if keyword.iskeyword(key) else key


def by_key(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries, under its keys."""
    return {key_of(field.name): _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    """A copy of a value in which sections, also those in lists and mappings, are dictionaries."""
    if dataclasses.is_dataclass(value):
        return by_key(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return copy.deepcopy(value)


@functools.cache
def leaves(schema: type) -> dict[str, Any]:
    """All settings of a schema by dotted key, sections opened, with their types."""
    found: dict[str, Any] = {}
    for name, kind in field_types(schema).items():
        if dataclasses.is_dataclass(bare(kind)):
            found |= {f"{name}.{key}": inner for key, inner in leaves(bare(kind)).items()}
        else:
            found[name] = kind
    return found


@functools.cache
def former_names(schema: type) -> dict[str, str]:
    """Dotted keys of sections and settings as they were called before, each with its present one."""
    found = {}
    for name, kind in field_types(schema).items():
        former = mark(kind, Formerly)
        if former:
            found[former.name] = name
        if dataclasses.is_dataclass(bare(kind)):
            found |= {f"{name}.{old}": f"{name}.{new}" for old, new in former_names(bare(kind)).items()}
    return found


def find_key(schema: type, key: str) -> tuple[Any, tuple[str, ...]]:
    """The type of a dotted key.

    Returns:
        the type with its marks, and the parts of the key that lie inside a setting of type `Any` or `dict`.

    Raises:
        ValueError: no such key, with what it is called now or with near ones.
    """
    parts = key.split(".")
    kind: Any = schema
    for i, part in enumerate(parts):
        plain = bare(kind)
        if dataclasses.is_dataclass(plain):
            kinds = field_types(typing.cast(type, plain))
            if part not in kinds:
                raise ValueError(unknown_key(schema, key))
            kind = kinds[part]
        elif plain is Any or typing.get_origin(plain) is dict or plain is dict:
            return kind, tuple(parts[i:])
        else:
            raise ValueError(f"unknown key {key}: {'.'.join(parts[:i])} is one value, it holds no {part}")
    return kind, ()


def setting_type(schema: type, key: str) -> Any:
    """How the value of a dotted key is read: the type of the setting, or of what lies inside one.

    Raises:
        ValueError: no such key.
    """
    kind, inside = find_key(schema, key)
    if not inside:
        return kind
    if mark(kind, Spec) is not None:
        return value_type(inside)
    holds = typing.get_args(bare(kind))
    return holds[1] if len(inside) == 1 and len(holds) == 2 else Any


def value_type(parts: Sequence[str]) -> Any:
    """How the value of a key inside a spec is read: names are texts, parameters whatever YAML 1.2 says."""
    return str if parts[-1] in ("name", "as") else Any


def unknown_key(schema: type, key: str, inside: Sequence[str] = ()) -> str:
    """What to say about a key that a schema does not have.

    Args:
        key: dotted, from the schema's root.
        inside: dotted keys that were found in it, where it was written as a section.
    """
    held = _held_section(schema, key)
    if held is not None:
        holder, section = held
        return f"in {holder}: {unknown_key(section, key.removeprefix(f'{holder}.'))}"
    present = _present_name(schema, key)
    if present:
        moved = [f"{old} is {new} now" for old in inside if (new := _present_name(schema, old))]
        return f"unknown key {key}: " + "; ".join([f"it is called {present} now", *moved])
    near = _meant(schema, key)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"unknown key {key}{hint}; keys here: {', '.join(_beside(schema, key))}"


def _held_section(schema: type, key: str) -> tuple[str, type] | None:
    """The innermost list's or mapping's section that a dotted key leads into: `hooks.0` for `hooks.0.url`."""
    parts, kind, found = key.split("."), typing.cast(Any, schema), None
    for i, part in enumerate(parts[:-1]):
        if dataclasses.is_dataclass(kind):
            kind = bare(field_types(typing.cast(type, kind)).get(part))
        elif typing.get_origin(kind) in (list, dict):
            kind = bare(typing.get_args(kind)[-1])
            if dataclasses.is_dataclass(kind):
                found = ".".join(parts[: i + 1]), typing.cast(type, kind)
        else:
            break
    return found


def _present_name(schema: type, key: str) -> str:
    """What a key of an older version is called now, or nothing."""
    names = former_names(schema)
    section, _, rest = key.partition(".")
    if key in names or not rest:
        return names.get(key, "")
    within = f"{names.get(section, section)}."
    found = [new for old, new in names.items() if old.startswith(within) and _joined(old).endswith(_joined(rest))]
    if section in names:  # the settings of a section that is called otherwise now, wherever in it they stand
        found += [leaf for leaf in leaves(schema) if leaf.startswith(within) and _joined(leaf).endswith(_joined(rest))]
    return min(found, key=len, default="")


def _joined(key: str) -> str:
    """`advantage_scale` and `advantage.scale` as the same text."""
    return "_" + key.replace(".", "_")


def _meant(schema: type, key: str) -> list[str]:
    """At most four keys that may be meant: alike in the last part, and then in all of it."""
    holder, _, last = key.rpartition(".")
    ranked = [(closeness, other) for other in _all_keys(schema) if (closeness := _closeness(last, other)) >= 0.7]
    best = max((closeness for closeness, _ in ranked), default=0.0)
    near = [other for closeness, other in ranked if closeness >= best - 0.15]
    for within in (holder, holder.partition(".")[0]):  # a typo in a section most likely means a key of that section
        if within and (same := [other for other in near if other.startswith(f"{within}.")]):
            near = same
            break
    alike = {other: difflib.SequenceMatcher(None, key, other).ratio() for other in near}
    return sorted(near, key=lambda other: -alike[other])[:4]


def _closeness(last: str, other: str) -> float:
    """How much the last part of a key is like another key, from 0 to 1."""
    own = other.rpartition(".")[2]
    if own == last or (last and _joined(other).endswith(f"_{last}")):
        return 1.0
    words = own.split("_")
    if len(words) > 1 and "".join(word[:1] for word in words) == last:  # lr: learning_rate
        return 0.9
    return difflib.SequenceMatcher(None, last, own).ratio()


@functools.cache
def _all_keys(schema: type) -> list[str]:
    """Settings and sections, dotted, a section before what it holds."""
    return list(dict.fromkeys(key.rsplit(".", n)[0] for key in leaves(schema) for n in range(key.count("."), -1, -1)))


def _beside(schema: type, key: str) -> list[str]:
    """The keys of the innermost section of a dotted key that exists."""
    kind, prefix = schema, ""
    for part in key.split(".")[:-1]:
        inner = bare(field_types(kind).get(part))
        if not dataclasses.is_dataclass(inner):
            break
        kind, prefix = typing.cast(type, inner), f"{prefix}{part}."
    return sorted(prefix + name for name in field_types(kind))
