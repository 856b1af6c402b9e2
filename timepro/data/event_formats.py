"""Writing events in the formats of annotation programs, players and evaluation tools.

`FORMATS` is the table of them; `timepro.data.event_files.read_event_file` reads each file back to the same events.
Times are written in milliseconds. A label is text without tabs and line breaks, as everywhere here. A recording without
events is written, too: as a row with its name alone, or as a file without events.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from timepro.data.manifest import CONTROL, shown
from timepro.data.table import COLUMNS, CONFIDENCE
from timepro.data.textgrid import textgrid_text
from timepro.data.tracks import JAMS_TAGS, without_audio_ending
from timepro.data.values import BadValue, is_missing, seconds, share, text
from timepro.hints import install_extra
from timepro.plugins import did_you_mean
from timepro.system.files import write_text

HIGHEST = 8000
"""Hz up to which the models hear: the height of the boxes in Raven."""


class TimedLabel(Protocol):
    """What is written of an event; its ``confidence``, a share of 0 to 1 or None, where it has one."""

    @property
    def onset(self) -> float: ...

    @property
    def offset(self) -> float: ...

    @property
    def label(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Written:
    """An event as it is written: seconds in whole milliseconds."""

    onset: float
    offset: float
    label: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording and its events. duration in seconds, None where nobody knows it."""

    name: str
    events: tuple[Written, ...]
    duration: float | None

    @property
    def end(self) -> float:
        """The duration, or the end of the last event: at least so long is the recording."""
        return max([self.duration or 0.0, *(event.offset for event in self.events)])


@dataclass(frozen=True, slots=True)
class EventFormat:
    """A format of event files.

    suffix: what a file's name ends in behind the recording's; its last part says the format.
    several: whether a file holds several recordings. about: a line for help texts. media_type: for HTTP.
    text: the content of a file; of one recording where ``several`` is False.
    """

    name: str
    suffix: str
    several: bool
    about: str
    media_type: str
    text: Callable[[Sequence[Recording]], str]

    @property
    def ending(self) -> str:
        """What the name of every file of this format ends in."""
        return Path(f"x{self.suffix}").suffix


def event_format(name: str) -> EventFormat:
    """A format by its name. Raises ValueError for an unknown one, with near names."""
    if name not in FORMATS:
        raise ValueError(f"no format {name!r}; there are {', '.join(FORMATS)}.{did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def events_text(
    name: str, recordings: Mapping[str, Sequence[TimedLabel]], durations: Mapping[str, float] | None = None
) -> str:
    """The content of one file.

    Args:
        name: of the format.
        recordings: name of the recording -> its events, in seconds from its start.
        durations: name of the recording -> its length in seconds, as far as it is known.

    Raises:
        ValueError: an unknown format, an event that it cannot hold, several recordings where it holds one, or a
            library that is not installed.
    """
    form = event_format(name)
    if not form.several and len(recordings) != 1:
        raise ValueError(
            f"a file of format {name} holds one recording, these are {len(recordings):,}; "
            f"write them into a folder, or choose {', '.join(n for n, f in FORMATS.items() if f.several)}"
        )
    return form.text([_checked(form, *item, (durations or {}).get(item[0])) for item in recordings.items()])


def write_events(
    name: str,
    recordings: Mapping[str, Sequence[TimedLabel]],
    out: str | Path | TextIO,
    durations: Mapping[str, float] | None = None,
) -> list[Path]:
    """Write events; files appear whole or not at all. Returns the paths of the files.

    Args:
        name: of the format, one of `FORMATS`.
        recordings, durations: as for `events_text`.
        out: an open text file; or a path: the file, which ends as the format does; or, where the format holds one
            recording a file, a folder, which is made. A path of such a format is a file if it ends as the format does.

    Raises:
        ValueError: as `events_text`; or a path that the format's reader would not take.
    """
    form = event_format(name)
    if not isinstance(out, (str, Path)):
        out.write(events_text(name, recordings, durations))
        return []
    path = Path(out)
    is_file = path.suffix.lower() == form.ending.lower() and not path.is_dir()
    if form.several and not is_file:
        raise ValueError(f"{path}: events of format {name} are one file; name it with the ending {form.ending}")
    if is_file:
        write_text(path, events_text(name, recordings, durations))
        return [path]
    paths = _paths(form, recordings, path)
    texts = {paths[key]: events_text(name, {key: events}, durations) for key, events in recordings.items()}
    for target, content in texts.items():  # all are known to be writable before the first is written
        write_text(target, content)
    return list(texts)


def _paths(form: EventFormat, names: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """A file for each recording, in the folders of its name; of a name that leads out of it, the last part."""
    found: dict[str, Path] = {}
    first: dict[Path, str] = {}
    for name in names:
        inside = name.replace("\\", "/").removeprefix("./")
        if "://" in inside or inside.startswith("/") or ".." in inside.split("/"):
            inside = inside.rstrip("/").rsplit("/", 1)[-1]
        path = folder / f"{without_audio_ending(inside)}{form.suffix}"
        other = first.setdefault(path, name)
        if other != name:
            raise ValueError(
                f"{path} would hold the events of {other!r} and of {name!r}, but a file of format {form.name} holds "
                f"one recording; choose {', '.join(n for n, f in FORMATS.items() if f.several)}"
            )
        found[name] = path
    return found


def _checked(form: EventFormat, name: str, events: Sequence[TimedLabel], duration: float | None) -> Recording:
    """A recording as it can be written. Raises ValueError, naming recording and event."""
    if form.several and (is_missing(name) or name != name.strip() or CONTROL.search(name)):
        raise ValueError(f"the recording's name {shown(name)} cannot stand in a table; rename the file")
    written = []
    for number, event in enumerate(events, 1):
        confidence = getattr(event, "confidence", None)
        try:
            onset, offset, label = round(seconds(event.onset), 3), round(seconds(event.offset), 3), text(event.label)
            if onset >= offset:
                raise BadValue(f"{event.onset} to {event.offset} s is no time at all, in milliseconds")
            if form.name in ("tsv", "csv") and is_missing(label):
                raise BadValue(f"the label {label!r} stands for a missing value in a table; choose another format")
            sure = None if confidence is None else round(share(confidence), 4)
        except BadValue as problem:
            raise ValueError(f"{name}, event {number}: {problem}") from None
        written.append(Written(onset, offset, label, sure))
    return Recording(name, tuple(written), duration)


# ---------------------------------------------------------------- tables and lines


def _table(recordings: Sequence[Recording], delimiter: str = "\t") -> str:
    out = io.StringIO()
    write = csv.writer(out, delimiter=delimiter, lineterminator="\n").writerow
    sure = any(event.confidence is not None for recording in recordings for event in recording.events)
    write([*COLUMNS, *([CONFIDENCE] if sure else [])])
    for recording in recordings:
        if not recording.events:
            write([recording.name, "", "", "", *([""] if sure else [])])
        for event in recording.events:
            times = [f"{event.onset:.3f}", f"{event.offset:.3f}"]
            write([recording.name, *times, event.label, *([event.confidence] if sure else [])])
    return out.getvalue()


def _comma_table(recordings: Sequence[Recording]) -> str:
    return _table(recordings, ",")


def _json_lines(recordings: Sequence[Recording]) -> str:
    return "".join(
        json.dumps(
            {
                "filename": recording.name,
                **({"duration": recording.duration} if recording.duration else {}),
                "events": [
                    {"onset": event.onset, "offset": event.offset, "event_label": event.label}
                    | ({} if event.confidence is None else {"confidence": event.confidence})
                    for event in recording.events
                ],
            },
            ensure_ascii=False,
        )
        + "\n"
        for recording in recordings
    )


def _audacity(recordings: Sequence[Recording]) -> str:
    return "".join(f"{e.onset:.6f}\t{e.offset:.6f}\t{e.label}\n" for e in recordings[0].events)


def _raven(recordings: Sequence[Recording]) -> str:
    out = io.StringIO()
    write = csv.writer(out, delimiter="\t", lineterminator="\n").writerow
    times, heights = ["Begin Time (s)", "End Time (s)"], ["Low Freq (Hz)", "High Freq (Hz)"]
    write(["Selection", "View", "Channel", *times, *heights, "Annotation", "Confidence"])
    for number, event in enumerate(recordings[0].events, 1):
        sure = "" if event.confidence is None else event.confidence
        where = [f"{event.onset:.3f}", f"{event.offset:.3f}", 0, HIGHEST]
        write([number, "Spectrogram 1", 1, *where, event.label, sure])
    return out.getvalue()


def _webvtt(recordings: Sequence[Recording]) -> str:
    try:
        import webvtt
    except ImportError:
        raise ValueError(f"WebVTT is written by the package webvtt-py; install it: {install_extra('detect')}") from None
    captions = webvtt.WebVTT()
    for event in sorted(recordings[0].events, key=lambda event: event.onset):
        # A cue's text is markup.
        captions.captions.append(
            webvtt.Caption(_clock(event.onset), _clock(event.offset), html.escape(event.label, quote=False))
        )
    return str(captions.content).rstrip("\n") + "\n"


def _clock(time: float) -> str:
    minutes, milliseconds = divmod(round(time * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _textgrid(recordings: Sequence[Recording]) -> str:
    return textgrid_text([(e.onset, e.offset, e.label) for e in recordings[0].events], recordings[0].end)


# ---------------------------------------------------------------- JSON documents


def _jams(recordings: Sequence[Recording]) -> str:
    recording = recordings[0]
    data = [
        {"time": e.onset, "duration": round(e.offset - e.onset, 3), "value": e.label, "confidence": e.confidence}
        for e in recording.events
    ]
    annotation = {
        "namespace": JAMS_TAGS,
        "data": data,
        "annotation_metadata": {"annotation_tools": "timepro"},
        "sandbox": {},
        "time": 0,
        "duration": recording.end,
    }
    about = {"title": recording.name, "duration": recording.end, "identifiers": {}, "jams_version": "0.3.5"}
    document = {"annotations": [annotation], "file_metadata": about, "sandbox": {}}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _label_studio(recordings: Sequence[Recording]) -> str:
    """Tasks with predictions, for a project with <Labels name="label" toName="audio"> and <Audio value="$audio">."""
    tasks = []
    for recording in recordings:
        regions = [
            {
                "id": f"event{number}",
                "type": "labels",
                "from_name": "label",
                "to_name": "audio",
                "value": {"start": event.onset, "end": event.offset, "channel": 0, "labels": [event.label]},
                **({"original_length": recording.duration} if recording.duration else {}),
                **({} if event.confidence is None else {"score": event.confidence}),
            }
            for number, event in enumerate(recording.events, 1)
        ]
        tasks.append(
            {"data": {"audio": recording.name}, "predictions": [{"model_version": "timepro", "result": regions}]}
        )
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


FORMATS: dict[str, EventFormat] = {
    form.name: form
    for form in (
        EventFormat("tsv", ".tsv", True, "DCASE's table", "text/tab-separated-values", _table),
        EventFormat("csv", ".csv", True, "the same with commas", "text/csv", _comma_table),
        EventFormat("jsonl", ".jsonl", True, "JSON, a recording a line", "application/jsonl", _json_lines),
        EventFormat("audacity", ".txt", False, "a label track", "text/plain", _audacity),
        EventFormat("raven", ".Table.1.selections.txt", False, "a selection table", "text/plain", _raven),
        EventFormat("webvtt", ".vtt", False, "subtitles for a video player", "text/vtt", _webvtt),
        EventFormat("textgrid", ".TextGrid", False, "Praat, a tier a label", "text/plain", _textgrid),
        EventFormat("jams", ".jams", False, "JAMS, open tags", "application/json", _jams),
        EventFormat("labelstudio", ".json", True, "Label Studio's pre-annotations", "application/json", _label_studio),
    )
}
"""The formats that events are written in, by name."""
