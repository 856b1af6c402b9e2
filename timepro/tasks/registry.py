"""Tasks by name: registering them, and finding them.

A task is named in a configuration, a manifest or on a command line by the name it is registered under, by an entry
point of the group `timepro.tasks`, or by an import path `module:object`. Once found, it is known by its short name,
which is what sample ids and metric keys hold.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from timepro.plugins import did_you_mean, import_object, installed, load
from timepro.tasks.base import LABELS, Column, Task

ENTRY_POINT_GROUP = "timepro.tasks"
SHIPPED = {
    "sed": "timepro.tasks.sed:SoundEventDetection",
    "ag": "timepro.tasks.ag:AudioGrounding",
    "dac": "timepro.tasks.dac:DenseAudioCaptioning",
}
"""Import paths of the tasks of this package, each imported when it is first asked for."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
T = TypeVar("T", bound=type[Task])


@dataclass(frozen=True)
class _Entry:
    """A known task. place: where it was registered, `module:line`; spec: what another process can find it by."""

    task: Task
    target: Any  # the class, or the object of an import path
    place: str
    spec: str


_registry: dict[str, _Entry] = {}


def register(target: T) -> T:
    """Class decorator: register a task under its `name`.

    Raises:
        ValueError: the name is taken, with both places; or the class is not a complete task.
    """
    caller = sys._getframe(1)
    module = caller.f_globals.get("__name__", "?")
    importable = module != "__main__" and target.__qualname__.isidentifier()
    _add(target, f"{module}:{caller.f_lineno}", f"{module}:{target.__qualname__}" if importable else target.name)
    return target


def available_tasks() -> list[str]:
    """Names that need no import path: those shipped, then others that are registered or installed, sorted."""
    others = (_registry.keys() | installed(ENTRY_POINT_GROUP).keys()) - SHIPPED.keys()
    return [*SHIPPED, *sorted(others)]


def find_task(name: str, where: str = "task") -> Task:
    """The task of a name or an import path.

    Args:
        where: the key, or the file and line, that names it, for messages.

    Raises:
        ValueError: there is no such task, with near names; or what was found is not a complete task.
    """
    return _find(name, where).task


def spec_of(name: str) -> str:
    """What another process can find a task by: its name, or the import path where only that leads to it.

    Raises:
        ValueError: as `find_task`.
    """
    return _find(name, "task").spec


def recorded(name: str) -> dict[str, str]:
    """What a line of a run's files says of its sample's task: its name, and its import path where only that finds it.

    Raises:
        ValueError: as `find_task`.
    """
    spec = spec_of(name)
    return {"task": name} if spec == name else {"task": name, "task_spec": spec}


def recorded_task(line: Mapping[str, Any]) -> Task:
    """The task of a line with what `recorded` gave; it is then known by its name in this process.

    Raises:
        ValueError: the line has no key `task`, and as `find_task`.
    """
    if not isinstance(line.get("task"), str):
        raise ValueError("missing key 'task', the name of the sample's task")
    return find_task(line.get("task_spec") or line["task"], "key 'task'")


def outside_tasks() -> list[str]:
    """Specs of the tasks of this process that another one would have to import first."""
    return [entry.spec for entry in _registry.values() if ":" in entry.spec]


def source_of(name: str) -> Path | None:
    """The file in which a task's class is written, None where it has none."""
    file = inspect.getsourcefile(type(find_task(name)))
    return Path(file) if file else None


def _find(name: str, where: str) -> _Entry:
    name = next((short for short, path in SHIPPED.items() if path == name), name)
    if name in _registry:
        return _registry[name]
    if name in SHIPPED:
        return _loaded(import_object(SHIPPED[name], "task", where), SHIPPED[name], name, where)
    if ":" in name:
        return _loaded(import_object(name, "task", where), name, name, where)
    points = installed(ENTRY_POINT_GROUP)
    if name in points:
        entry = _loaded(load(points[name], where), f"entry point {points[name].value}", name, where)
        if entry.task.name != name:
            raise ValueError(
                f"{where}: entry point {name!r} ({points[name].value}) gives a task called {entry.task.name!r}; "
                "give both the same name"
            )
        return entry
    known = available_tasks()
    raise ValueError(
        f"{where}: unknown task {name!r}.{did_you_mean(name, known)} Available: {', '.join(known)}; "
        "a task of your own is named by its import path 'module:object'"
    )


def _loaded(target: Any, place: str, spec: str, where: str) -> _Entry:
    """The entry of an imported object, which may have registered itself on import."""
    for name, entry in _registry.items():
        if entry.target is target:
            if entry.spec not in SHIPPED:  # this spec has just worked
                _registry[name] = replace(entry, spec=spec)
            return _registry[name]
    is_class = isinstance(target, type)
    if not (issubclass(target, Task) if is_class else isinstance(target, Task)):
        what = target.__name__ if is_class else type(target).__name__
        raise ValueError(f"{where}: {spec!r} is {what}, which is not a task: derive it from timepro.tasks.Task")
    try:
        return _add(target, place, spec)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _add(target: Any, place: str, spec: str) -> _Entry:
    try:
        task = target() if isinstance(target, type) else target
    except TypeError as error:
        raise ValueError(f"task {target.__name__} at {place} cannot be made without arguments: {error}") from error
    _check(task, place)
    # A shipped task has its name before it is imported.
    taken = _registry[task.name].place if task.name in _registry else SHIPPED.get(task.name, place)
    if taken != place:  # the same place again is a module that is reloaded, not a second task
        raise ValueError(f"task {task.name!r} is registered twice: at {taken} and at {place}; rename one of them")
    _registry[task.name] = _Entry(task, target, place, spec)
    return _registry[task.name]


def _check(task: Task, place: str) -> None:
    """Refuse a task that would fail, or give a key that nobody can read, hours later."""
    kind = type(task).__name__
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"task {kind} at {place}: name is {task.name!r}; letters, digits, '_' and '-' make a name")
    if not task.asks:
        raise ValueError(f"task {task.name!r} at {place}: asks is empty; it is the question that the model is asked")
    if task.labels not in LABELS:
        raise ValueError(
            f"task {task.name!r} at {place}: labels is {task.labels!r}; it must be one of {', '.join(LABELS)}"
        )
    if wrong := [column for column in task.columns if not isinstance(column, Column)]:
        raise ValueError(f"task {task.name!r} at {place}: columns holds {wrong[0]!r}; each is a timepro.tasks.Column")
    keys = [column.key for column in task.columns]
    if task.main_metric not in keys:
        raise ValueError(
            f"task {task.name!r} at {place}: main_metric is {task.main_metric!r}, which is none of its columns "
            f"({', '.join(keys)}); add a Column for it"
        )
