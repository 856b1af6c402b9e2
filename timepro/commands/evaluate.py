"""Score predicted events against reference events, file by file.

PREDICTIONS and REFERENCE are tables (.tsv, .csv; header: filename onset offset event_label), label files of Audacity,
Sonic Visualiser, Raven, Praat, JAMS or WebVTT, one a recording, or a folder of them, or JSON (.json, .jsonl; also an
export of Label Studio):

  a file with its events   {"filename": "a.wav", "events": [{"onset": 0.5, "offset": 1.2, "event_label": "Dog"}]}
  or a single event        {"filename": "a.wav", "onset": 0.5, "offset": 1.2, "event_label": "Dog"}

A manifest and the answers of a run (runs/NAME/eval/*.jsonl) are read too. The reference names every file of the test
set: one without events has a row with its name alone or with nothing (or nan) for onset, offset and label, or
"events": []. A file without predictions is an empty answer; predictions for other files are left out and counted; a
predicted event without length is a false positive. What was read otherwise than it stands is listed. For PSDS each file
holds several answers, "samples": [[...], [...]], lists of events, beside its "events".
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.commands.output import print_json
from timepro.hints import fail

if TYPE_CHECKING:
    from timepro.data.event_parts import FileEvents
    from timepro.data.repairs import Repairs

EXAMPLES = """\
  timepro evaluate found.tsv validation.tsv               a table of every metric, with 95 % intervals
  timepro evaluate found.csv manifest.jsonl --json        one JSON object, for a program
  timepro evaluate answers.jsonl manifest.jsonl --psds    PSDS from several "samples" a file, too
  timepro evaluate labels/ manifest.jsonl --match basename --label-map names.tsv    another program's names
"""
_LATE = 1e-3  # seconds by which an event may exceed its file: durations are often rounded to milliseconds


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that are about event files; `rollout.commands.evaluate` adds those about a checkpoint."""
    parser.add_argument(
        "predictions", type=Path, nargs="?", metavar="PREDICTIONS", help="the events that a system found"
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="the events that are there; or a manifest")
    parser.add_argument(
        "--durations",
        type=Path,
        metavar="FILE",
        help="a table 'filename duration' in seconds: PSDS needs it where the JSON files do not say it, and events "
        "beyond the end of their file are counted",
    )
    _configure_joining(parser)
    collars = parser.add_argument_group("event-based matching")
    for name, what in (
        ("onset-collar", "largest error of an onset in seconds"),
        ("offset-collar", "largest error of an offset in seconds"),
        ("offset-ratio", "the same as a share of the reference's length, where that is more"),
    ):
        collars.add_argument(
            f"--{name}", type=at_least_zero, default=0.2, metavar="X", help=f"{what} (default: %(default)s)"
        )
    collars.add_argument(
        "--tolerance",
        type=at_least_zero,
        default=0.0,
        metavar="X",
        help="seconds added to every collar; 0, the default, compares as sed_eval does, 1e-6 as the reward eb_f1 does, "
        "so that times on a grid that differ by exactly the collar match",
    )
    parser.add_argument("--ignore-labels", action="store_true", help="score times alone, as for grounding")
    parser.add_argument(
        "--psds",
        action="store_true",
        help='PSDS 1 and 2 from the "samples" of each file, or from a confidence of each event; needs sed_scores_eval',
    )
    parser.add_argument(
        "--resamples",
        type=whole_number,
        default=2000,
        metavar="N",
        help="bootstrap resamples for the intervals; 0 for none (default: %(default)s)",
    )


def _configure_joining(parser: argparse.ArgumentParser) -> None:
    joining = parser.add_argument_group("joining another system's names")
    joining.add_argument(
        "--match",
        choices=("exact", "basename"),
        default="exact",
        help="how files are found on the other side: by the whole name, or by the name without folders and without "
        "the audio file's ending (default: %(default)s)",
    )
    joining.add_argument(
        "--label-map",
        type=Path,
        metavar="FILE",
        help="a predicted label a line, behind a tab what the reference calls it ('-': leave its events out)",
    )
    joining.add_argument(
        "--columns",
        default="",
        metavar="OURS=YOURS,...",
        help="the names of PREDICTIONS' columns, where they are others: filename=file,onset=start,offset=end",
    )
    joining.add_argument("--tier", default="", metavar="NAME", help="the tier of TextGrids that have several")


def at_least_zero(text: str) -> float:
    """The type of an option that is a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def whole_number(text: str) -> int:
    """The type of an option that is a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Print the scores; returns the exit code."""
    try:
        report = evaluate(options)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    if options.json:
        print_json(report)
    else:
        from timepro.metrics.tables import print_report

        print_report(f"{options.predictions.name} against {options.reference.name}", report, options.format)
    return 0


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """The report of `event_report`, with ``settings``, ``files``, ``notes`` and, where asked for, ``psds``.

    Raises ValueError and OSError for files that cannot be read or do not belong together.
    """
    from timepro.data.event_files import read_durations
    from timepro.data.event_parts import FileEvents
    from timepro.data.joining import by_basename
    from timepro.data.repairs import Repairs
    from timepro.events import ParsedAnswer
    from timepro.metrics.report import event_report

    repairs = Repairs()
    reference, predictions = _both_sides(options, repairs)
    if not reference:
        raise ValueError(f"{options.reference} names no files, so there is nothing to score against")
    extra = [name for name in predictions if name not in reference]
    if predictions and len(extra) == len(predictions):
        raise ValueError(
            f"none of the {len(predictions)} files of {options.predictions} is in {options.reference}: the first are "
            f"{extra[0]!r} and {next(iter(reference))!r}; names must be equal, ending and folder included, unless "
            "--match basename says otherwise"
        )
    answers = [predictions.get(name, FileEvents()) for name in reference]
    durations = {name: f.duration for files in (predictions, reference) for name, f in files.items() if f.duration}
    if options.durations:
        stated = {name: FileEvents(duration=seconds) for name, seconds in read_durations(options.durations).items()}
        stated = by_basename(stated, options.durations) if options.match == "basename" else stated
        durations |= {name: entry.duration for name, entry in stated.items() if entry.duration}
    settings = {
        "onset_collar": options.onset_collar,
        "offset_collar": options.offset_collar,
        "offset_ratio": options.offset_ratio,
        "tolerance": options.tolerance,
        "use_label": not options.ignore_labels,
    }
    report = event_report(
        [entry.events for entry in reference.values()],
        [ParsedAnswer(entry.events, entry.ok) for entry in answers],
        options.resamples,
        **settings,
    )
    if options.psds:
        report["psds"] = _psds(options, reference, predictions, durations)
    report["settings"] = settings | {"resamples": options.resamples}
    report["files"] = {
        "reference": len(reference),
        "predictions": len(predictions),
        "ignored": len(extra),
        "unanswered": sum(name not in predictions for name in reference),
    }
    report["notes"] = repairs.lines() + _notes(options, reference, predictions, durations)
    return report


def _notes(
    options: argparse.Namespace,
    reference: Mapping[str, FileEvents],
    predictions: Mapping[str, FileEvents],
    durations: Mapping[str, float],
) -> list[str]:
    """What a reader of the numbers should know about the files."""
    from timepro.data.joining import labels_of
    from timepro.data.spelling import side_notes

    names = (options.predictions.name, options.reference.name)
    unanswered = [name for name in reference if name not in predictions]
    both = {name: predictions[name] for name in reference if name in predictions}
    untimed = [name for name in reference if name not in durations] if options.durations else []
    return [
        *([] if options.ignore_labels else side_notes(labels_of(predictions), labels_of(reference), names)),
        *_listed([n for n in predictions if n not in reference], f"in {options.predictions} only: left out"),
        *_listed(unanswered, f"in {options.reference} only: scored as empty answers"),
        *_listed(untimed, f"not in {options.durations}: no end to check their events against"),
        *_listed(_late(reference, durations), "with a reference event that ends after the file"),
        *_listed(_late(both, durations), "with a predicted event that ends after the file: scored as they are"),
    ]


def _both_sides(options: argparse.Namespace, repairs: Repairs) -> tuple[dict[str, FileEvents], dict[str, FileEvents]]:
    """Reference and predictions, by the same names of files and labels as far as the options join them."""
    from timepro.data.event_files import ReadOptions, read_event_file
    from timepro.data.joining import by_basename, labels_of, relabelled
    from timepro.data.labels import read_label_map
    from timepro.data.table import columns_named

    columns = columns_named(options.columns)
    reference = read_event_file(options.reference, "reference", repairs, ReadOptions(tier=options.tier))
    predictions = read_event_file(options.predictions, "predictions", repairs, ReadOptions(columns, options.tier))
    if options.match == "basename":
        reference = by_basename(reference, options.reference)
        predictions = by_basename(predictions, options.predictions)
    if options.label_map:
        labels = read_label_map(options.label_map)
        predictions = relabelled(predictions, labels, labels_of(reference), options.predictions)
    return reference, predictions


def _psds(
    options: argparse.Namespace,
    reference: Mapping[str, FileEvents],
    predictions: Mapping[str, FileEvents],
    durations: Mapping[str, float],
) -> dict[str, float]:
    from timepro.data.event_parts import FileEvents
    from timepro.evaluation import sampled_psds
    from timepro.inference.detections import Detection
    from timepro.metrics.psds import psds_of_events

    samples = {name: entry.samples for name, entry in predictions.items() if entry.samples}
    sure = not samples and any(entry.confidences for entry in predictions.values())
    for there, what in (
        (
            reference if sure else samples,
            f'no sampled answers in {options.predictions}; give each file "samples": [[...], ...], or each event a '
            "confidence",
        ),
        (durations, "no duration; name a table 'filename duration' with --durations"),
    ):
        missing = [name for name in reference if name not in there]
        if missing:
            raise ValueError(f"PSDS: {len(missing)} of {len(reference)} files, the first {missing[0]!r}, have {what}")
    truth, lengths = [entry.events for entry in reference.values()], [durations[name] for name in reference]
    if not sure:
        return sampled_psds(truth, [samples[name] for name in reference], lengths)
    entries = [predictions.get(name, FileEvents()) for name in reference]
    boxes = [
        [
            Detection(event.onset, event.offset, event.label, confidence)
            for event, confidence in zip(entry.events, entry.confidences or [None] * len(entry.events), strict=True)
        ]
        for entry in entries
    ]
    return {f"{key}_events": value for key, value in psds_of_events(truth, boxes, lengths).items()}


def _late(files: Mapping[str, FileEvents], durations: Mapping[str, float]) -> list[str]:
    return [
        name
        for name, entry in files.items()
        if any(event.offset > durations.get(name, math.inf) + _LATE for event in entry.events)
    ]


def _listed(names: list[str], what: str) -> list[str]:
    if not names:
        return []
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return [f"{len(names)} {'file' if len(names) == 1 else 'files'} {what} ({shown})"]
