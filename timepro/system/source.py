"""Which of our own modules a module is made of: its import closure, read from the source without importing anything."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("timepro", "rewards", "rollout", "trainer")


def import_closure(*modules: str) -> list[Path]:
    """The files of modules and of all that they import, directly or not, inside functions too; sorted.

    Args:
        modules: dotted names; of a package, all modules in it.

    Raises:
        ValueError: there is no such module.
    """
    found: set[str] = set()
    waiting = [name for module in modules for name in _members(module)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name)
            waiting += _packages_above(name)  # which importing it runs, too
    return sorted(path for name in found if (path := module_file(name)) is not None)


@functools.cache
def imports_of(module: str) -> tuple[str, ...]:
    """The modules of this project that one module names in its imports, wherever in its source they stand."""
    path = module_file(module)
    if path is None:
        return ()
    names: dict[str, None] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= dict.fromkeys(name if module_file(name) else node.module for name in below)
    return tuple(name for name in names if name.split(".")[0] in _PACKAGES and module_file(name))


def project_modules() -> list[str]:
    """All modules of this project's packages, sorted."""
    return sorted(name for package in _PACKAGES for name in _members(package))


def module_file(module: str) -> Path | None:
    """A module's file, or its package's `__init__.py`; None where the name is not a module of this project."""
    path = _ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _packages_above(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _members(module: str) -> list[str]:
    if module_file(module) is None:
        raise ValueError(f"{module} is not a module of this project")
    folder = _ROOT.joinpath(*module.split("."))
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    below = [".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    return list(dict.fromkeys([module, *below]))
