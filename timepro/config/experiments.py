"""Experiments by name or path, their bases, and the overrides on top."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from timepro.config.keys import field_types, find_key, setting_type
from timepro.config.marks import Spec, bare, mark
from timepro.config.specs import merge_spec, set_in_spec
from timepro.config.structured import build
from timepro.config.values import Place, compose, read_node, read_text
from timepro.names import near

T = TypeVar("T")
BASE_KEY = "base"
_NO_EXPERIMENTS = ("base", "sweeps", "benchmarks")  # folders beside experiments
_ENDINGS = (".yaml", ".yml")


def experiment_folders() -> list[Path]:
    """Where experiments are looked for by name: `experiments/` of the working folder, then those of this checkout."""
    here, built_in = Path("experiments"), Path(__file__).resolve().parents[2] / "experiments"
    own = [here] if here.is_dir() and here.resolve() != built_in else []
    return [*own, Path("experiments") if not own and here.is_dir() else built_in]


def list_experiments(folder: Path) -> list[str]:
    """Names of experiments: YAML files below `folder`, but for `base/`, `sweeps/` and `benchmarks/`."""
    relative = (path.relative_to(folder) for path in sorted(folder.rglob("*.yaml")))
    return [str(path.with_suffix("")) for path in relative if path.parts[0] not in _NO_EXPERIMENTS]


def load_experiment(name: str, overrides: Sequence[str], schema: type[T], folders: Path | Sequence[Path]) -> T:
    """Resolve an experiment to an instance of `schema`.

    Args:
        name: a file below one of `folders`, without `.yaml`; or the path of a YAML file anywhere.
        overrides: `key.path=value`; the setting's type decides how the value is read.
        schema: dataclass of the whole configuration.
        folders: where experiments and bases are looked for by name, the first first.

    Raises:
        ValueError: an unknown experiment, base or key (with near names), or a bad value.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    path, own_name = _find(name, folders)
    values = _read_with_bases(path, folders, schema, ())
    values.setdefault("name", own_name)
    for text in overrides:
        Override.parse(text, schema).apply(values)
    return build(schema, values)


@dataclass(frozen=True)
class Override:
    """One `key=value` of the command line.

    Args:
        text: as it was given.
        key: the setting's dotted key, and what lies inside a setting that is a mapping.
        n_inside: how many of the key's parts lie inside the setting.
        is_spec: whether the setting names an object with parameters.
        value: of the setting's type.
    """

    text: str
    key: tuple[str, ...]
    n_inside: int
    is_spec: bool
    value: Any

    @classmethod
    def parse(cls, text: str, schema: type) -> Override:
        """Read an override.

        Raises:
            ValueError: not key=value, an unknown key, or a value of another type.
        """
        key, equals, value = text.partition("=")
        key, where = key.strip(), f"override {text!r}"
        if not equals or not key:
            raise ValueError(f"{where} is not of the form key=value, for example seed=1")
        try:
            kind, inside = find_key(schema, key)
            value_kind = setting_type(schema, key)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        found = read_text(value, value_kind, Place(where, schema, key, is_file=False))
        return cls(text, tuple(key.split(".")), len(inside), mark(kind, Spec) is not None, found)

    def apply(self, values: dict[str, Any]) -> None:
        """Put the value into nested dictionaries as `load_experiment` merges them."""
        n_outside = len(self.key) - self.n_inside
        holder = values
        for part in self.key[: n_outside - 1]:
            holder = holder.setdefault(part, {})
        last, inside = self.key[n_outside - 1], self.key[n_outside:]
        if self.is_spec:
            holder[last] = set_in_spec(holder.get(last), inside, self.value, f"override {self.text!r}")
            return
        nested = self.value
        for part in reversed(inside):
            nested = {part: nested}
        holder[last] = _merged(holder.get(last), nested)


def _find(name: str, folders: Sequence[Path]) -> tuple[Path, str]:
    """An experiment's file, and the name of its runs."""
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml", name.replace("/", "-")
    path = Path(name)
    if path.suffix in _ENDINGS and path.is_file():
        for folder in folders:  # typed as a path, but one of those that have a name
            if path.resolve().is_relative_to(folder.resolve()):
                relative = path.resolve().relative_to(folder.resolve())
                return path, str(relative.with_suffix("")).replace("/", "-")
        return path, path.stem
    known = sorted({one for folder in folders if folder.is_dir() for one in list_experiments(folder)})
    what = f"there is no file {name}" if path.suffix in _ENDINGS else f"there is no experiment {name!r}"
    raise ValueError(f"{what}{near(name, known)}; experiments: {', '.join(known) or 'none'}")


def _read_with_bases(path: Path, folders: Sequence[Path], schema: type, seen: tuple[Path, ...]) -> dict[str, Any]:
    if any(path.resolve() == other.resolve() for other in seen):
        raise ValueError(f"{path}: bases form a circle: {' -> '.join(str(p) for p in (*seen, path))}")
    place = Place(str(path), schema)
    try:
        node = compose(path.read_text(encoding="utf-8"), place)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        what = "list" if isinstance(node, yaml.SequenceNode) else "single value"
        raise ValueError(f"{path}: an experiment is a mapping of keys, not a {what}")
    merged: dict[str, Any] = {}
    for name in _bases(node, place):
        base = _find_base(name, path, folders)
        merged = _merged_files(merged, _read_with_bases(base, folders, schema, (*seen, path)), schema)
    own = yaml.MappingNode(node.tag, [pair for pair in node.value if pair[0].value != BASE_KEY], node.start_mark)
    return _merged_files(merged, read_node(own, schema, place), schema)


def _bases(node: yaml.MappingNode, place: Place) -> list[str]:
    """The names under `base:`, one or a list of them, the last the strongest."""
    named = [value for key, value in node.value if key.value == BASE_KEY]
    place = place.at(BASE_KEY)
    if len(named) > 1:
        raise place.error("stands here twice; write one list of bases", named[1])
    if named and isinstance(named[0], yaml.SequenceNode):
        return typing.cast(list[str], read_node(named[0], list[str], place))
    return [read_node(value, str, place) for value in named]


def _find_base(name: str, path: Path, folders: Sequence[Path]) -> Path:
    """The file of a base: in the folder of experiments that `path` lies in (or beside it), then in the others."""
    own = [folder for folder in folders if path.resolve().is_relative_to(folder.resolve())] or [path.parent]
    ending = "" if Path(name).suffix in _ENDINGS else ".yaml"
    places = [path.parent] if not ending else [*own, *(folder for folder in folders if folder not in own)]
    tried = [place / f"{name}{ending}" for place in places]
    for file in tried:
        if file.is_file() and file.resolve() != path.resolve():
            return file
    raise ValueError(f"{path}: its base {name} does not exist; looked for {', '.join(map(str, tried))}")


def _merged_files(base: Mapping[str, Any], values: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """The values of a file over those of its base, section by section."""
    kinds, merged = field_types(schema), dict(base)
    for key, value in values.items():
        kind = kinds[key]
        if mark(kind, Spec) is not None:
            merged[key] = merge_spec(merged.get(key), value)
        elif dataclasses.is_dataclass(bare(kind)):
            merged[key] = _merged_files(merged.get(key, {}), value, typing.cast(type, bare(kind)))
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _merged(old: Any, new: Any) -> Any:
    """Mappings are merged key by key; everything else, lists too, is replaced."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
