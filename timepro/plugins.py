"""Objects that are named in a configuration and live outside this program: by import path, or in a package."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def import_object(path: str, kind: str, where: str) -> Any:
    """The object of an import path `module:object`; the module may lie in the current folder.

    Args:
        kind: what it is to be ("reward", "task"), for messages.
        where: the key that names it, for messages.

    Raises:
        ValueError: there is no such module, or it has no such object.
    """
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:  # where a command is run from, as with `python -m`; last, so that it hides nothing
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:  # ValueError: an empty module name
        raise ValueError(
            f"{where}: cannot import module {module_name!r} of {kind} {path!r}: {error}; "
            "is it in this folder or on PYTHONPATH?"
        ) from error
    if not hasattr(module, attribute):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{where}: module {module_name!r} has no {attribute!r}; it has: {', '.join(callables)}")
    return getattr(module, attribute)


def installed(group: str) -> dict[str, EntryPoint]:
    """What installed packages offer under an entry point group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def load(point: EntryPoint, where: str) -> Any:
    """The object that an installed package offers.

    Args:
        where: the key that names it, for messages.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{where}: entry point {point.name} = {point.value} of the group {point.group} cannot be loaded ({error}); "
            "mend or uninstall its package"
        ) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at known names that are near, for the end of a sentence; empty where none is."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
