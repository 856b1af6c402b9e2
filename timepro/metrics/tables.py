"""A report of `event_report` as tables for people, with the definitions that its numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timepro.metrics.psds import psds_heading
from timepro.tables import print_lines, print_table, results_table

_KINDS = {
    "event_based": "event-based",
    "segment_based_1s": "segment-based, 1 s",
    "segment_based_100ms": "segment-based, 0.1 s",
    "intersection": "intersection",
}
_AVERAGES = {"micro": "micro", "macro": "macro", "macro_sed_eval": "macro as sed_eval"}
_CLASS_COLUMNS = {"segment_based_1s": "F1 1 s", "segment_based_100ms": "F1 0.1 s", "intersection": "F1 intersection"}
_MAX_CLASSES = 60


def print_report(title: str, report: Mapping[str, Any], form: str = "text") -> None:
    """Print a report of `event_report` to which `timepro evaluate` has added settings, notes and perhaps PSDS."""
    settings = report["settings"]
    interval = [("low", "95 % from", ".4f", ""), ("high", "to", ".4f", "")] if settings["resamples"] else []
    rates = [("precision", "precision", ".4f", ""), ("recall", "recall", ".4f", "")]
    columns = [("f1", "F1", ".4f", ""), *interval, *rates, ("error_rate", "error rate", ".4f", "")]
    title = f"{title}, {report['n']} files, {_collars(settings)}"
    print_table(results_table(title, _averages(report), columns), form)

    overlap = {"miou": report["miou"], "unparsable": report["unparsable"], "empty": report["empty"]}
    overlap |= {f"r{threshold}": share for threshold, share in report["r_at"].items()} | report.get("psds", {})
    overlap |= dict(zip(("low", "high"), report.get("miou_interval", ()), strict=False))
    columns = [("miou", "mIoU", ".4f", ""), *interval]
    columns += [(f"r{threshold}", f"R@{threshold}", ".4f", "") for threshold in report["r_at"]]
    columns += [(name, psds_heading(name), ".4f", "") for name in report.get("psds", ())]
    columns += [("unparsable", "unparsable", ".1%", ""), ("empty", "empty answers", ".1%", "")]
    print_table(results_table("Overlap of files", [("", overlap)], columns), form)

    if rows := _classes(report):
        columns = [("f1", "F1", ".4f", ""), *rates, ("n_ref", "reference", "d", ""), ("n_est", "predicted", "d", "")]
        columns += [(kind, heading, ".4f", "") for kind, heading in _CLASS_COLUMNS.items()]
        more = len(report["class_wise"]) - len(rows)
        cut = f" (the {len(rows)} most frequent; {more} more with --json)" if more else ""
        title = f"Classes, event-based unless said otherwise{cut}"
        print_table(results_table(title, rows, columns), form)
    print_lines([*_definitions(settings), *report["notes"]], form)


def _averages(report: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    rows = []
    for kind, kind_name in _KINDS.items():
        for average, name in _AVERAGES.items():
            if average not in report[kind]:
                continue
            values = dict(report[kind][average])
            values |= dict(zip(("low", "high"), values.pop("f1_interval", ()), strict=False))
            rate = report["error_rate"].get(kind)
            if rate and average != "macro_sed_eval":
                values["error_rate"] = rate["error_rate" if average == "micro" else "macro"]
            rows.append((f"{kind_name}, {name}", values))
    return rows


def _classes(report: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Rows of the most frequent classes in alphabetical order; none where labels play no part."""
    classes = report["class_wise"]
    if set(classes) <= {""}:
        return []
    frequent = sorted(classes, key=lambda label: -classes[label]["event_based"]["n_ref"])[:_MAX_CLASSES]
    return [
        (label, classes[label]["event_based"] | {kind: classes[label][kind]["f1"] for kind in _CLASS_COLUMNS})
        for label in sorted(frequent)
    ]


def _collars(settings: Mapping[str, float]) -> str:
    onset, offset, ratio = (settings[key] for key in ("onset_collar", "offset_collar", "offset_ratio"))
    labels = "" if settings["use_label"] else ", labels ignored"
    return (
        f"collars {onset:g} s and max({offset:g} s, {ratio:g} of length), tolerance {settings['tolerance']:g} s{labels}"
    )


def _definitions(settings: Mapping[str, float]) -> list[str]:
    lines = [
        f"event-based: optimal matching, {_collars(settings)}",
        "macro: mean over every class of reference or predictions; as sed_eval: over those with a reference",
        "intersection: dtc 0.5, gtc 0.5 (cttc 0.3 plays no part in F1); error rate: lower is better",
        "mIoU, R@: IoU of each file's intervals, mean over its labels; both sides empty 1, unparsable 0",
    ]
    if settings["resamples"]:
        lines.append(f"intervals: 95 %, {settings['resamples']} bootstrap resamples of the files")
    return lines
