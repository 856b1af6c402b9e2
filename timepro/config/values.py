"""Values from text, read as the type of their setting says.

YAML alone would guess the type from the text: `off` becomes false, `3.10` becomes 3.1 and `010` becomes 8. Here the
dataclasses decide. A setting of type `str` keeps its text as it is written; `int`, `float` and `bool` take what they
hold and nothing else; a setting of type `Any` (and what is inside it) takes the numbers, `true`, `false` and `null` of
YAML 1.2 and leaves every other word a text.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from timepro.config.keys import field_types, unknown_key
from timepro.config.marks import Limits, bare, mark

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # leaves every scalar a text; in C where PyYAML has it
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.?inf", re.IGNORECASE)
_TRUE, _FALSE, _NULL = ("true", "True", "TRUE"), ("false", "False", "FALSE"), ("null", "Null", "NULL", "~", "")
_WANTED = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list, such as [a, b]",
    dict: "a mapping, such as {a: 1}",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a value stands.

    Args:
        where: the file, or the override.
        schema: the dataclass of the whole, for near names.
        key: dotted, from the schema's root.
        is_file: whether a line can be named.
    """

    where: str
    schema: type
    key: str = ""
    is_file: bool = True

    def at(self, key: str) -> Place:
        """A key inside this one."""
        return dataclasses.replace(self, key=f"{self.key}.{key}" if self.key else key)

    def error(self, message: str, node: yaml.Node | None = None) -> ValueError:
        """The error for the value here."""
        return self.fault((f"key {self.key}: " if self.key else "") + message, node)

    def fault(self, message: str, node: yaml.Node | None = None) -> ValueError:
        """An error that names its key itself."""
        line = f":{node.start_mark.line + 1}" if self.is_file and node is not None else ""
        return ValueError(f"{self.where}{line}: {message}")


def compose(text: str, place: Place) -> yaml.Node | None:
    """The nodes of a YAML document; None for an empty one.

    Raises:
        ValueError: not valid YAML, or with a tag (`!!int`) or an alias (`*name`).
    """
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise place.error(f"the alias *{event.anchor} is not read here; experiments share settings by base:")
            if (tag := getattr(event, "tag", None)) is not None:
                raise place.error(f"the tag {tag} is not read here; each setting has its own type")
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise place.error(f"not valid YAML: {' '.join(str(error).split())}") from error


def read_node(node: yaml.Node, kind: Any, place: Place) -> Any:
    """A YAML node's value as the type of its setting says; sections become dictionaries.

    Args:
        node: what `compose` gave.
        kind: the type, marks included: a dataclass, `str`, `int`, `float`, `bool`, `list[...]`, `dict[str, ...]`,
            `Any`, or one of these `| None`.
        place: named in errors.

    Raises:
        ValueError: an unknown key, a key twice, a value of another type or out of range.
    """
    plain = bare(kind)
    inner = _without_none(plain)
    if inner is not plain:
        return None if _is_null(node) else read_node(node, inner, place)
    if dataclasses.is_dataclass(plain):
        return _section(node, typing.cast(type, plain), place)
    if plain is Any:
        return _anything(node, place)
    holder, inside = typing.get_origin(plain) or plain, typing.get_args(plain)
    if holder is list:
        if not isinstance(node, yaml.SequenceNode):
            raise _wrong(node, list, place)
        return [read_node(item, inside[0] if inside else Any, place.at(str(i))) for i, item in enumerate(node.value)]
    if holder is dict:
        if not isinstance(node, yaml.MappingNode):
            raise _wrong(node, dict, place)
        return {k: read_node(v, inside[1] if inside else Any, place.at(k)) for k, _, v in _pairs(node, place)}
    return _scalar(node, plain, mark(kind, Limits), place)


def read_text(text: str, kind: Any, place: Place) -> Any:
    """An override's value: for a `str` the text as it was typed, else YAML of the setting's type.

    A text that is one quoted YAML scalar loses its quotes (`name='run #2'` inside the shell's own quotes).

    Raises:
        ValueError: as `read_node`.
    """
    plain, word = bare(kind), text.strip()
    node: yaml.Node | None = _quoted(word)
    if plain is str:
        return text if node is None else node.value
    if node is None and plain in (int, float, bool):
        node = _word(word)
    if node is None:
        node = compose(word, place) or _word("")
        if plain is Any and isinstance(node, yaml.ScalarNode) and not node.style:
            node = _word(word)  # whole: YAML would drop what stands behind ` #`
    if plain is Any and not word:
        return ""
    return read_node(node, kind, place)


def _section(node: yaml.Node, schema: type, place: Place) -> dict[str, Any]:
    kinds, values = field_types(schema), {}
    if not isinstance(node, yaml.MappingNode):
        raise place.error(f"expected a section with {', '.join(kinds)}; got {_shown(node)}", node)
    for key, key_node, value in _pairs(node, place):
        if key not in kinds:
            dotted = place.at(key).key
            raise place.fault(unknown_key(place.schema, dotted, tuple(_inside(value, dotted))), key_node)
        values[key] = read_node(value, kinds[key], place.at(key))
    return values


def _inside(node: yaml.Node, holder: str) -> Iterator[str]:
    """The dotted keys of a section that the schema does not have."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = f"{holder}.{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _inside(value, name)
        else:
            yield name


def _pairs(node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Keys and values of a mapping; a key that stands there twice is refused, since one of them would be lost."""
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise place.error("a key must be one word, not a list or a mapping", key)
        if key.value in seen:
            raise place.at(key.value).error("stands here twice; remove one of them", key)
        seen.add(key.value)
        yield key.value, key, value


def _scalar(node: yaml.Node, kind: type, limits: Limits | None, place: Place) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, kind, place)
    if kind is str:
        if not node.style and node.value in _NULL[:-1] and place.is_file:
            raise place.error(f"write '' for no text, or '{node.value}' in quotes for this one", node)
        return node.value
    value = _number(node.value, kind) if not node.style else None
    if kind is bool and not node.style and node.value in (*_TRUE, *_FALSE):
        value = node.value in _TRUE
    if value is None:
        raise _wrong(node, kind, place)
    if limits is not None and not limits.admit(value):
        raise place.error(f"{node.value} is out of range; it must be {limits}", node)
    return value


def _number(text: str, kind: type) -> int | float | None:
    """The number that a text writes, or None: also where a float could not hold it."""
    if kind is int and _INT.fullmatch(text) and len(text) < 1000:
        return int(text)
    if kind is float and _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if kind is float and _FLOAT.fullmatch(text):
        value = float(text)
        is_zero = not re.search("[1-9]", re.split("[eE]", text)[0])
        return None if math.isinf(value) or (value == 0) != is_zero else value
    return None


def _anything(node: yaml.Node, place: Place) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_anything(item, place.at(str(i))) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return {key: _anything(value, place.at(key)) for key, _, value in _pairs(node, place)}
    text = node.value
    if isinstance(node, yaml.ScalarNode) and node.style:
        return text
    if text in _NULL:
        return None
    if text in (*_TRUE, *_FALSE):
        return text in _TRUE
    for kind in (int, float):
        value = _number(text, kind)
        if value is not None and text.lower() not in ("inf", "+inf", "-inf"):
            return value
    return text


def _wrong(node: yaml.Node, kind: type, place: Place) -> ValueError:
    advice = ""
    if isinstance(node, yaml.ScalarNode) and kind in (int, float, bool):
        if node.style:
            advice = ", without quotes"
        elif kind is bool and node.value.lower() in ("yes", "no", "on", "off", "y", "n", "0", "1"):
            advice = f"; write {'true' if node.value.lower() in ('yes', 'on', 'y', '1') else 'false'}"
        elif kind is float and _FLOAT.fullmatch(node.value):
            advice = " that a 64-bit float can hold"
    return place.error(f"{_shown(node)} is not {_WANTED[kind]}{advice}", node)


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    quoted = isinstance(node, yaml.ScalarNode) and node.style
    return repr(node.value) if node.value or quoted else "nothing"


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in _NULL


def _word(text: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)


def _quoted(text: str) -> yaml.ScalarNode | None:
    """The node of a text that is one quoted scalar from its first to its last character, else None."""
    if len(text) < 2 or text[0] not in "'\"" or text[0] != text[-1] or "\n" in text:
        return None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return None
    whole = isinstance(node, yaml.ScalarNode) and node.style and node.end_mark.index == len(text)
    return typing.cast(yaml.ScalarNode, node) if whole else None


def _without_none(kind: Any) -> Any:
    """`X` of `X | None`; any other type as it is."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    others = [one for one in typing.get_args(kind) if one is not type(None)]
    return others[0] if len(others) == 1 else kind
