"""Find sound events in recordings: what, from when to when, and how sure.

A SOURCE is an audio or video file, a folder of them (with its sub-folders), or an address (http, https, rtsp). Any
length will do: the sound goes through the checkpoint in windows that end where it is quietest, and memory does not grow
with it.

Events go to standard output or to --out, progress and notes to standard error. A table holds all sources together; a
format with one recording a file (audacity, raven, webvtt, textgrid, jams) goes to a file beside another in the folder
--out. A source that cannot be read is named, the others go on, and the exit code is 1.

The confidence of an event is the probability of the tokens that write it, or with --samples N the share of N sampled
answers that hold a matching one. `timepro plot calibration` chooses thresholds for a wanted precision and keeps them in
the checkpoint's folder, where this command finds them.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timepro.commands.detect_output import Output
from timepro.commands.evaluate import at_least_zero, whole_number
from timepro.commands.inputs import checkpoint_or_newest
from timepro.data.audio import read_header
from timepro.data.event_formats import FORMATS
from timepro.hints import fail
from timepro.inference.sources import is_address
from timepro.names import first_of
from timepro.progress import ProgressBar, clock
from timepro.system.quiet import quiet_transformers

if TYPE_CHECKING:
    from timepro.inference.answering import Backend
    from timepro.inference.detections import SourceDetections
    from timepro.inference.detector import Detector

EXAMPLES = """\
  timepro detect night.flac                                          by the newest finished run below runs/
  timepro detect recordings/ --out events.tsv                        a folder, one table
  timepro detect door.mp4 --format webvtt --out door.vtt             subtitles for a video player
  timepro detect night.flac --labels glass_breaking --threshold 0.8  the sure ones of one class
  timepro detect night.flac --samples 8 --all --format jsonl         confidences from 8 answers, the unsure ones too
  timepro detect night.flac --query "glass breaking"                 in your words: a checkpoint trained for grounding
"""
ENDINGS = frozenset(
    (
        ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".m4a", ".aac",
        ".wma", ".amr", ".ac3", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".flv", ".3gp",
    )
)  # fmt: skip
"""Of the files in a folder that are listened to. A file that is named itself may end in anything."""

_BATCH = 8  # windows that are asked about together: a server answers them at once


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; `rollout.commands.detect` adds those about a server, and names what runs it."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a file, a folder, or an address")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="such as runs/NAME/checkpoint (default: the newest finished run)",
    )
    formats = "; ".join(f"{form.name}: {form.about}" for form in FORMATS.values())
    parser.add_argument("--format", metavar="FORMAT", help=f"{formats} (default: by --out's ending, or tsv)")
    parser.add_argument("--out", type=Path, metavar="PATH", help="a file, or a folder for one file a recording")
    asking = parser.add_argument_group("what is looked for")
    asking.add_argument("--labels", metavar="A,B", help="report these labels alone")
    asking.add_argument("--query", metavar="TEXT", help="what to listen for, in words")
    asking.add_argument("--task", metavar="TASK", help="whose question is asked: sed, ag, dac, or module:object")
    sure = parser.add_argument_group("how sure it must be")
    sure.add_argument(
        "--threshold", type=_thresholds, metavar="X", help="report from this confidence on; or LABEL=X,LABEL=X"
    )
    sure.add_argument(
        "--samples", type=whole_number, default=0, metavar="N", help="draw N answers a window (default: the greedy one)"
    )
    sure.add_argument("--all", action="store_true", help="also report what stays below the threshold")
    cutting = parser.add_argument_group("windows")
    cutting.add_argument("--window", type=_above_zero, metavar="S", help="at most, in seconds (default: as trained)")
    cutting.add_argument("--overlap", type=at_least_zero, metavar="S", help="seconds that two windows share (0.3)")
    cutting.add_argument(
        "--even", action="store_true", help="windows of one length (default: each ends where it is quietest)"
    )
    cutting.add_argument(
        "--gap", type=at_least_zero, default=0.1, metavar="S", help="join events of a label that are so close (0.1)"
    )
    parser.add_argument(
        "--timeout", type=_above_zero, default=20.0, metavar="S", help="how long an address may keep silent (20)"
    )


def _above_zero(text: str) -> float:
    value = at_least_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError("it must be above 0")
    return value


def _thresholds(text: str) -> float | dict[str, float]:
    try:
        if "=" not in text:
            return _confidence(text)
        pairs = [part.rpartition("=") for part in text.split(",")]
        return {label.strip(): _confidence(value) for label, _, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a confidence from 0 to 1 nor LABEL=CONFIDENCE, several with commas between"
        ) from None


def _confidence(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def run(options: argparse.Namespace, backend: Callable[[], Backend] | None = None) -> int:
    """Detect and write.

    Args:
        backend: makes what runs the checkpoint in place of transformers in this process.

    Returns:
        0, 1 where something failed, 2 for what the user can put right before anything is heard, 130 when stopped.
    """
    try:
        sources = expand(options.sources)
        output = Output.of(options.format, options.out, len(sources))
        checkpoint = checkpoint_or_newest(options.checkpoint)
        if options.checkpoint is None:
            _note(f"checkpoint {checkpoint}, of the newest finished run")
        detector = _detector(options, checkpoint, backend)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    except RuntimeError as error:  # a server that does not answer
        return fail(str(error), 1)
    heard = listen_to_all(detector, sources, options.all, options.timeout, output.require_name)
    try:
        for path in output.write(heard.found, options.all):
            _note(f"wrote {path}")
    except (ValueError, OSError) as error:
        return fail(str(error), 1)
    return 130 if heard.stopped else 1 if heard.failed else 0


def _detector(options: argparse.Namespace, checkpoint: Path, backend: Callable[[], Backend] | None) -> Detector:
    quiet_transformers()
    from timepro.inference.detector import Detector

    labels = [label.strip() for label in options.labels.split(",")] if options.labels else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        detector = Detector(
            checkpoint, task=options.task, labels=labels, query=options.query, samples=options.samples,
            threshold=options.threshold, window=options.window, overlap=options.overlap, gap=options.gap,
            even=options.even, backend=backend() if backend else None, batch=_BATCH,
        )  # fmt: skip
    for warning in said:
        if warning.category is UserWarning:
            _note(str(warning.message))
    _note(f"windows of up to {detector.window_s:g} s that share {detector.overlap_s:g} s; {detector.confidence}")
    return detector


@dataclass
class Heard:
    """What came of the sources: their events, how many failed, and whether the user has stopped it."""

    found: list[SourceDetections]
    failed: int = 0
    stopped: bool = False


def listen_to_all(
    detector: Detector, sources: Sequence[str], below: bool, timeout_s: float, check: Callable[[str], None]
) -> Heard:
    """Listen to one source behind the other; each that fails, or that `check` refuses, is named on standard error."""
    heard, begun = Heard([]), time.monotonic()
    lengths = [_seconds(source) for source in sources]
    total = sum(lengths) if all(lengths) else 0.0  # not known
    done = 0.0
    with ProgressBar("detect", int(total), "s of sound") as bar:

        def progress(seconds: float) -> None:
            if (more := int(done + seconds) - bar.done) > 0:
                bar.advance(more, _speed(done + seconds, begun))

        for source in sources:
            try:
                check(source)
                found = detector.listen(source, below=below, timeout_s=timeout_s, progress=progress)
            except (ValueError, OSError, RuntimeError) as error:
                heard.failed += 1
                fail(str(error) if str(error).startswith(source) else f"{source}: {error}", 1)
                continue
            except KeyboardInterrupt:
                heard.stopped = True
                _note(f"stopped in {source}")
                break
            heard.found.append(found)
            if found.start is not None:
                _note(f"{source}: second 0 of its times is {found.start.isoformat(timespec='milliseconds')}")
            done += found.duration or 0.0
            if found.problem:
                heard.failed += 1
                fail(found.problem, 1)
    events, unsure = (sum(len(getattr(one, name)) for one in heard.found) for name in ("events", "below"))
    _note(
        f"{events:,} events in {len(heard.found):,} of {len(sources):,} sources"
        + (f", and {unsure:,} below the threshold" if below else "")
        + f"; {clock(done)} of sound in {clock(time.monotonic() - begun)}, {_speed(done, begun)}"
    )
    return heard


def _seconds(source: str) -> float:
    """Of a file, for the progress alone; 0 where only decoding tells."""
    if is_address(source):
        return 0.0
    try:
        return read_header(source).duration
    except (ValueError, OSError):
        return 0.0


def _speed(seconds: float, begun: float) -> str:
    """The real-time factor: 0.1 is ten times as fast as the sound itself."""
    return f"{(time.monotonic() - begun) / max(seconds, 1e-9):.2f} of real time"


def expand(sources: Sequence[str]) -> list[str]:
    """Files and addresses, folders replaced by the audio and video files in them, each once, in order.

    Raises:
        ValueError: a path that does not exist, or a folder without such files.
    """
    found: dict[str, None] = {}
    for source in sources:
        if is_address(source) or not Path(source).is_dir():
            found[source] = None
            continue
        files = [path for path in sorted(Path(source).rglob("*")) if path.is_file() and not _hidden(path, source)]
        sound = [path for path in files if path.suffix.lower() in ENDINGS]
        if not sound:
            raise ValueError(f"{source} holds no audio or video file, of {len(files):,} files")
        if others := sorted({path.suffix.lower() or "no ending" for path in files} - ENDINGS):
            _note(f"{source}: {len(files) - len(sound):,} files left out, neither audio nor video ({first_of(others)})")
        found |= dict.fromkeys(map(str, sound))
    return list(found)


def _hidden(path: Path, top: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
