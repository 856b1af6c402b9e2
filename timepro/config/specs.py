"""Settings that name an object with parameters, such as `rewards`: a name, or `{name: ..., parameter: ...}`.

Parameters belong to the name they were written for. Whoever names another object, in a file or by an override, starts
from that object's own defaults; parameters without a name change those of the object that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timepro.config.keys import value_type
from timepro.config.values import Place, read_text


def spec_of(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The spec of a name and `key=value` settings, with dots for what is nested.

    Raises:
        ValueError: a setting of another form, or a value that is not valid YAML.
    """
    spec: Any = {"name": name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        parts = key.split(".")
        if not equals or not all(parts) or " " in key:
            raise ValueError(f"{setting!r}: expected key=value, for example onset_collar=0.1 or aux.name=miou")
        read = read_text(value, value_type(parts), Place(repr(setting), object, is_file=False))
        spec = set_in_spec(spec, parts, read, repr(setting))
    return spec


def merge_spec(old: Any, new: Any) -> Any:
    """What a file that says `new` makes of the spec `old` of its base."""
    if not isinstance(new, Mapping) or "name" in new or old in (None, ""):
        return new
    if isinstance(old, list):
        return new
    merged = _opened(old)
    for key, value in new.items():
        merged[key] = merge_spec(merged.get(key), value)
    return merged


def set_in_spec(old: Any, parts: Sequence[str], value: Any, where: str) -> Any:
    """The spec `old` with one override applied.

    Args:
        parts: the key inside the spec: none for the whole, ("main", "onset_collar"), ("terms", "0", "weight").
        where: the override, for errors.

    Raises:
        ValueError: a place in a list that it does not have.
    """
    if not parts:
        return merge_spec(old, value)
    first, rest = parts[0], parts[1:]
    if isinstance(old, list):
        if not first.isdecimal() or int(first) >= len(old):
            raise ValueError(f"{where}: {first!r} is not one of the list's places, 0 to {len(old) - 1}")
        return [*old[: int(first)], set_in_spec(old[int(first)], rest, value, where), *old[int(first) + 1 :]]
    opened = _opened(old)
    if first == "name" and not rest:
        return opened if opened.get("name") == value else {"name": value}
    return opened | {first: set_in_spec(opened.get(first), rest, value, where)}


def _opened(spec: Any) -> dict[str, Any]:
    if isinstance(spec, Mapping):
        return dict(spec)
    return {} if spec in (None, "") else {"name": spec}
