"""Tasks of Label Studio, as it exports them (JSON, not JSON-MIN): what people marked, or what a model foretold.

    [{"data": {"audio": "take.wav"},
      "annotations": [{"result": [{"type": "labels", "value": {"start": 0.5, "end": 1.5, "labels": ["Dog"]}}]}]}]

The annotation counts where there is one, else the prediction; one that was cancelled (skipped) does not. A region with
several labels is an event of each; what is no region, such as a choice for the whole task, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from timepro.data.event_parts import Bad
from timepro.data.manifest import shown

_UPLOADED = re.compile(r"/data/upload/(?:[0-9]+/)?(?:[0-9a-f]{8}-)?(.+)")


@dataclass(frozen=True, slots=True)
class Region:
    """A marked stretch with one label, as it is written. place: where it stands in its task."""

    onset: Any
    offset: Any
    label: Any
    confidence: Any
    place: str


@dataclass(frozen=True, slots=True)
class Task:
    """A recording with its regions. duration in seconds, None where no region says it."""

    name: Any
    regions: tuple[Region, ...]
    duration: float | None


def is_task(item: Mapping[str, Any]) -> bool:
    """Whether an object of a JSON list is a task of Label Studio."""
    return isinstance(item.get("data"), dict) and ("annotations" in item or "predictions" in item)


def read_task(item: Mapping[str, Any]) -> Task:
    """The events of a task. Raises Bad for what is no such task, and for several annotations of one."""
    which, found = _chosen(item)
    regions: list[Region] = []
    durations = []
    for number, result in enumerate(_list(found.get("result", []), f"{which}.result")):
        place = f"{which}.result[{number}]"
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            raise Bad(f"key '{place}': expected an object with a 'value', got {shown(result)}")
        if "start" not in value:
            continue
        labels = _list(value.get("labels", []), f"{place}.value.labels")
        if not labels:
            raise Bad(f"key '{place}': a region without a label; give it one in Label Studio, or delete it")
        score = result.get("score")
        regions += [Region(value["start"], value.get("end"), label, score, f"key '{place}.value'") for label in labels]
        durations.append(result.get("original_length"))
    length = next((d for d in durations if isinstance(d, (int, float)) and not isinstance(d, bool) and d > 0), None)
    return Task(_audio_name(item["data"]), tuple(regions), length)


def _chosen(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for which in ("annotations", "predictions"):
        there = [a for a in _list(item.get(which) or [], which) if isinstance(a, dict) and not a.get("was_cancelled")]
        if len(there) > 1:
            raise Bad(f"key '{which}': {len(there)} of one recording; keep the one that counts")
        if there:
            return which, there[0]
    raise Bad("neither an annotation nor a prediction; label the task, or leave it out of the export")


def _audio_name(data: Mapping[str, Any]) -> Any:
    """The recording's name without what Label Studio puts around it."""
    value = data.get("audio")
    if value is None and len(texts := [v for v in data.values() if isinstance(v, str)]) == 1:
        value = texts[0]
    if not isinstance(value, str):
        raise Bad(f"key 'data': which is the audio? {shown(data)} has no 'audio'")
    if uploaded := _UPLOADED.fullmatch(value):
        return unquote(uploaded[1])
    if value.startswith("/data/local-files/"):
        return parse_qs(urlsplit(value).query).get("d", [value])[0]
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise Bad(f"key '{where}': expected a list, got {type(value).__name__}")
    return value
