"""`timepro plot calibration`: a checkpoint's confidences beside the truth, and thresholds for a wanted precision."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.commands.inputs import require_checkpoint, require_files
from timepro.plots.files import default_name
from timepro.system.quiet import quiet_transformers

if TYPE_CHECKING:
    from timepro.inference.detector import Detector
    from timepro.metrics.calibration import Chosen, Judged


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; `timepro.commands.plot` adds --out."""
    parser.add_argument("run", type=Path, metavar="RUN_OR_CHECKPOINT", help="a run's folder, or a checkpoint's")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="validation clips with their events")
    parser.add_argument(
        "--precision", type=_share, metavar="P",
        help="keep in the checkpoint's folder, as detection.json, the thresholds from which on this share of the "
        "events is right; `timepro detect`, `serve` and `monitor` use them",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=_count, default=0, metavar="N",
        help="confidence is the share of N sampled answers (default: the probability of the greedy one)",
    )  # fmt: skip
    parser.add_argument("--clips", type=_count, metavar="N", help="the first N clips of the manifest alone")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1, such as 0.9")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def checkpoint_of(folder: Path) -> Path:
    """The checkpoint in a run's folder, or the folder itself. Raises ValueError where there is none."""
    inside = folder / "checkpoint"
    if not (folder / "config.json").is_file() and (inside / "config.json").is_file():
        return inside
    require_checkpoint(folder)
    return folder


def draw(options: argparse.Namespace) -> Path:
    """Ask, judge, choose, draw, and print what was found; returns the picture.

    Raises:
        ValueError, FileNotFoundError: no checkpoint, a manifest that cannot be read, clips that cannot be asked about.
    """
    checkpoint = checkpoint_of(options.run)
    require_files([options.manifest])
    quiet_transformers()
    from timepro.inference.detector import Detector

    detector = Detector(checkpoint, samples=options.samples, threshold=0.0)
    found, clips = judge(detector, options.manifest, options.clips)
    return conclude(options, checkpoint, detector.kind or "", found, clips)


def judge(detector: Detector, manifest: Path, most: int | None = None) -> tuple[Judged, int]:
    """All events that a detector finds in a manifest's clips beside those that are there; and the number of clips.

    A clip that fits into a window is judged as the window tells it. A detector that reports everything joins events of
    one label that overlap, and sampled answers differ a little in the times of one event; above a threshold few do.

    Args:
        most: clips from the manifest's start; None for all.

    Raises:
        ValueError: no clips.
    """
    from timepro.data.audio import read_audio
    from timepro.data.manifest import read_manifest
    from timepro.metrics.calibration import judged
    from timepro.progress import ProgressBar

    clips = list(read_manifest(manifest))[:most]
    if not clips:
        raise ValueError(f"{manifest} holds no clips")
    references, estimates = [], []
    with ProgressBar("calibration", len(clips), "clips") as bar:
        for clip in clips:
            waveform = read_audio(clip.audio, detector.sample_rate)
            # Thresholds are for what a window says, before close events are joined.
            one_window = len(waveform) <= detector.window_s * detector.sample_rate
            estimates.append(detector.window(waveform, every=True) if one_window else detector.detect(waveform))
            references.append(clip.labelled("exact"))
            bar.advance()
    # As in the reward: on the model's grid of times, half of the pairs exactly at the collar would fail by rounding.
    return judged(references, estimates, tolerance=1e-6), len(clips)


def conclude(options: argparse.Namespace, checkpoint: Path, kind: Any, found: Judged, clips: int) -> Path:
    """Choose thresholds where a precision is asked for, keep them, print and draw. Returns the picture."""
    from timepro.inference.thresholds import Thresholds, write_thresholds
    from timepro.metrics.calibration import choose_by_label, reliability
    from timepro.plots.calibration import draw_calibration

    wanted, samples = options.precision, options.samples
    chosen, by_label = choose_by_label(found, wanted) if wanted else (None, {})
    parts = (f"samples={samples}" if samples else "greedy", f"precision={wanted:g}" if wanted else "")
    name = default_name("calibration", *parts, unseen=(str(options.manifest.resolve()), str(options.clips or "")))
    out: Path = options.out or options.run / name
    what = f"share of {samples} sampled answers" if samples else "probability of the greedy answer"
    draw_calibration(out, found, f"{options.run.resolve().name} on {options.manifest.name}: {what}", chosen)
    error = reliability(found.confidence, found.right).error
    print(f"{len(found.label):,} events in {clips:,} clips, {found.right.mean():.1%} right; confidence: {what}")
    print(f"expected calibration error: {error:.3f}")
    if chosen is not None:
        _print_thresholds(found, chosen, by_label, wanted)
        about = {
            "manifest": options.manifest.name, "clips": clips, "events": len(found.label), "samples": samples,
            "precision": wanted, "expected_calibration_error": round(error, 4),
            "chosen": {label: _numbers(one) for label, one in {"": chosen, **by_label}.items()},
        }  # fmt: skip
        thresholds = {label: one.threshold for label, one in by_label.items()}
        print(f"kept: {write_thresholds(checkpoint, Thresholds(kind, chosen.threshold, thresholds, about))}")
    return out


def _numbers(chosen: Chosen) -> dict[str, float | int | None]:
    def plain(value: float) -> float | None:
        return round(value, 4) if value == value else None  # JSON has no NaN

    return {"precision": plain(chosen.precision), "recall": plain(chosen.recall), "events": chosen.kept}


def _print_thresholds(found: Judged, chosen: Chosen, by_label: Mapping[str, Chosen], wanted: float) -> None:
    from timepro.metrics.calibration import MIN_EVENTS
    from timepro.tables import print_table, results_table

    rows = [
        (name, {"events": len(part.label), "threshold": one.threshold, "precision": one.precision,
                "recall": one.recall, "kept": one.kept})
        for name, part, one in [
            ("all labels", found, chosen), *((label, found.of(label), one) for label, one in by_label.items())
        ]
    ]  # fmt: skip
    columns = (
        ("events", "events", "d", ""), ("threshold", "threshold", ".3f", ""), ("precision", "precision", ".3f"),
        ("recall", "recall", ".3f"), ("kept", "kept", "d", ""),
    )  # fmt: skip
    print_table(results_table(f"thresholds for a precision of {wanted:g}", rows, columns))
    rare = [label for label in found.labels if label not in by_label]
    if rare:
        print(f"fewer than {MIN_EVENTS} events, so with the threshold of all labels: {', '.join(rare)}")
    short = [name for name, one in {"all labels": chosen, **by_label}.items() if not one.reached]
    if short:
        print(f"no threshold is so precise, so the most precise one was taken: {', '.join(short)}")
