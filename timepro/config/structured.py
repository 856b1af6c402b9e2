"""Values that were read as OmegaConf's structured configurations: over the defaults, checked, made objects.

OmegaConf is imported where it is used: an unknown experiment or key is answered before.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from timepro.config.keys import field_of, field_types
from timepro.config.marks import bare

T = TypeVar("T")
_INTERPOLATION = re.compile(r"(\\*)\$\{")  # with the backslashes in front, which OmegaConf would halve


def build(schema: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a dataclass from nested values; keys that are left out have their defaults.

    Texts stay as they are: `${...}` is no reference to another key, since experiments share settings by `base:`.

    Raises:
        ValueError: a key that the schema does not have, a value of another type, or one that the dataclass refuses.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(_defaults(typing.cast(Any, schema)), _escaped(_by_field(schema, values)))
        return typing.cast(T, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _by_field(schema: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values under the names of a dataclass's fields instead of its keys."""
    kinds, found = field_types(schema), {}
    for key, value in values.items():
        kind = bare(kinds[key]) if key in kinds else None
        section = dataclasses.is_dataclass(kind) and isinstance(value, Mapping)
        found[field_of(key)] = _by_field(kind, value) if section else value
    return found


@functools.cache
def _defaults(schema: type) -> Any:
    """A dataclass's defaults; kept, since a sweep builds the same one for every trial, and unchanged by a merge."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _escaped(value: Any) -> Any:
    """Values in which OmegaConf finds no interpolation."""
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return _INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value
