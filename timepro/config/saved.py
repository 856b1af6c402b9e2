"""The resolved configuration of a run, kept with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml

from timepro.config.keys import by_key
from timepro.config.structured import build
from timepro.config.values import Place, compose, read_node
from timepro.system.files import write_text

T = TypeVar("T")


def to_yaml(config: Any) -> str:
    """A configuration as YAML that `load_resolved` reads back to the same values."""
    return yaml.safe_dump(by_key(config), sort_keys=False, width=120)


def save_resolved(config: Any, path: Path) -> None:
    """Write a resolved configuration, atomically."""
    write_text(path, to_yaml(config))


def load_resolved(path: Path, schema: type[T]) -> T:
    """Read what `save_resolved` wrote.

    Raises:
        ValueError: a key or a value that the schema does not take, by file and line.
    """
    place = Place(str(path), schema)
    node = compose(path.read_text(encoding="utf-8"), place)
    return build(schema, read_node(node, schema, place) if node else {})
