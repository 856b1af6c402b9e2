"""Read a published data set, or labels and audio of your own, into a manifest; mix, split or show manifests.

Every clip is checked: its audio can be read and is as long as stated, its events lie inside it, no id comes twice.
All problems are reported at once, by file and line, and nothing is written, unless --skip-invalid leaves those clips
out: the list of them goes to MANIFEST.skipped.tsv. `timepro data FORMAT --help` describes the layout expected.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timepro.commands.output import add_output, print_json
from timepro.data.formats import FORMATS, layout_text
from timepro.data.repairs import counted
from timepro.hints import fail
from timepro.plots.files import beside, picture_path

if TYPE_CHECKING:
    from timepro.data.convert import Report

EXAMPLES = """\
  timepro data desed --root dcase/dataset --out desed.jsonl --split validation
  timepro data audioset-strong --root audioset --out strong.jsonl --skip-invalid
  timepro data table labels.tsv --audio recordings --out mine.jsonl              your own labels and audio
  timepro data split mine.jsonl train.jsonl=0.8 validation.jsonl=0.1 test.jsonl=0.1
  timepro data mix --out mixed.jsonl sed=desed.jsonl ag=audiogrounding.jsonl     clips of several tasks in one
  timepro data soundbank recordings                       check recordings of single sounds, a sub-folder a class
  timepro data show desed.jsonl                           hours, classes, overlaps; and a picture, desed.png
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="FORMAT|table|mix|split|show|soundbank")
    for name, title in FORMATS.items():
        one = commands.add_parser(
            name, help=title, description=layout_text(name), formatter_class=argparse.RawDescriptionHelpFormatter
        )
        one.add_argument("--root", type=Path, required=True, help="the folder with the layout above")
        one.add_argument("--split", action="append", default=[], help="read this split alone; may be given again")
        _configure_checks(one)
    _configure_table(commands)
    mixed = commands.add_parser(
        "mix",
        help="write the clips of several tasks' manifests into one",
        description="Write several manifests into one, the clips of each for one task alone: what an experiment on "
        "several tasks (task: {sed: 1, ag: 1}) reads. Ids become TASK:ID.",
    )
    mixed.add_argument("parts", nargs="+", metavar="TASK=MANIFEST", help="sed, ag or dac, and its manifest")
    mixed.add_argument("--out", type=Path, required=True, help="the manifest to write (JSON lines)")
    parted = commands.add_parser(
        "split",
        help="share a manifest's recordings out over several manifests",
        description="Share a manifest's recordings out at random, such as for training and validation. All clips about "
        "one audio file come into the same part.",
    )
    parted.add_argument("manifest", type=Path)
    parted.add_argument("parts", nargs="+", metavar="PART=SHARE", help="a manifest to write and its share: a.jsonl=0.9")
    parted.add_argument("--seed", type=int, default=0, help="another one draws other parts (default: %(default)s)")
    show = commands.add_parser(
        "show", help="summarise a manifest and draw it", description="Summarise a manifest in tables and a picture."
    )
    show.add_argument("manifest", type=Path)
    add_output(show)
    show.add_argument("--no-audio", action="store_true", help="do not look at the audio files")
    show.add_argument(
        "--out", type=picture_path, help="the picture: .png, .jpg, .pdf, .svg (default: the manifest's name with .png)"
    )
    _configure_soundbank(commands)
    parser.set_defaults(command=run)


def _configure_soundbank(commands: Any) -> None:
    """Add the sub-command for a folder of recordings to be mixed."""
    from timepro.data import soundbank
    from timepro.data.soundbank.settings import BankConfig

    bank = commands.add_parser(
        "soundbank",
        help="check a folder of recordings that an experiment mixes (data.soundbank=FOLDER)",
        description=soundbank.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bank.add_argument("folder", type=Path, metavar="FOLDER", help="a sub-folder a class, recordings of single sounds")
    bank.add_argument("--classes", default="", metavar="A,B,...", help="these sub-folders alone (data.bank.classes)")
    bank.add_argument(
        "--trim-db", type=float, default=BankConfig().trim_db, metavar="DB",
        help="where a sound begins and ends, below its loudest 10 ms (data.bank.trim_db; default %(default)s)",
    )  # fmt: skip
    bank.add_argument("--workers", type=int, default=2, help="processes that read recordings (default %(default)s)")
    add_output(bank)


def _configure_table(commands: Any) -> None:
    """Add the sub-command for labels of one's own."""
    from timepro.data.formats import own

    table = commands.add_parser(
        "table",
        help="labels and audio of your own: a table, or label files of an annotation program",
        description=own.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table.add_argument("labels", type=Path, metavar="LABELS", help="the table, label file or folder of label files")
    table.add_argument("--audio", type=Path, required=True, metavar="DIR", help="the folder that holds the audio")
    table.add_argument(
        "--split", default="", help="what each line of the manifest says of its split (default: nothing)"
    )
    table.add_argument(
        "--columns",
        default="",
        metavar="OURS=YOURS,...",
        help="the names of the table's columns, where they are others: filename=file,onset=start,offset=end",
    )
    table.add_argument("--tier", default="", metavar="NAME", help="the tier of a TextGrid that has several")
    table.add_argument(
        "--unlisted",
        choices=own.UNLISTED,
        default=own.UNLISTED[0],
        help="audio that LABELS does not name: leave it out, or take it as clips without events (default: %(default)s)",
    )
    _configure_checks(table)


def _configure_checks(parser: argparse.ArgumentParser) -> None:
    """Add what every conversion into a manifest can be told."""
    add_output(parser)
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write (JSON lines)")
    parser.add_argument(
        "--label-map",
        type=Path,
        help="a label a line, behind a tab what it becomes ('-': leave its events out); others are refused",
    )
    parser.add_argument(
        "--trim",
        type=float,
        metavar="SECONDS",
        help="cut events that outlast their audio by at most this (default 0.2); others are refused",
    )
    parser.add_argument("--skip-invalid", action="store_true", help="leave clips with problems out, and list them")
    parser.add_argument("--workers", type=int, default=2, help="processes that check audio (default %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 done, 1 failed, 2 refused, 130 or 143 stopped by a signal."""
    before = signal.signal(signal.SIGTERM, _stop)  # an exception, so that half-written files are removed
    try:
        actions = {"show": _show, "mix": _mix, "split": _split, "soundbank": _soundbank}
        return actions.get(options.action, _convert)(options)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)
    except (RuntimeError, OSError) as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        return fail("stopped; nothing was written", 130)
    except _Terminated:
        return fail("stopped; nothing was written", 143)
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    pass


def _stop(number: int, frame: object) -> None:
    raise _Terminated


def _show(options: argparse.Namespace) -> int:
    from timepro.data.overview import as_json, draw_overview, overview, print_overview
    from timepro.tables import print_lines

    found = overview(options.manifest, check_audio=not options.no_audio)
    picture = options.out or beside(options.manifest)
    if options.json:
        print_json(as_json(found) | {"picture": picture})
    else:
        print_overview(found, str(options.manifest), options.format)
    draw_overview(found, picture, options.manifest.name)
    if not options.json:
        print_lines([f"picture: {picture}"], options.format)
    if not found.audio_problems:
        return 0
    what = f"{counted(len(found.audio_problems), 'clip')} of {options.manifest} do not fit their audio"
    return fail(f"{what}, see above; --no-audio does not look at it", 2)


def _soundbank(options: argparse.Namespace) -> int:
    from timepro.data.soundbank.bank import open_bank
    from timepro.data.soundbank.overview import facts_of, print_facts
    from timepro.data.soundbank.settings import BankConfig
    from timepro.progress import ProgressBar

    if not 10 <= options.trim_db <= 90:
        raise ValueError(f"--trim-db is {options.trim_db:g}; it must be at least 10 and at most 90")
    classes = [name.strip() for name in options.classes.split(",") if name.strip()]
    config = BankConfig(classes=classes, trim_db=options.trim_db)
    with ProgressBar("measuring recordings", 0, "files") as bar:
        facts = facts_of(open_bank(options.folder, config, None, options.workers, bar.advance))
    if options.json:
        print_json(facts)
    else:
        print_facts(facts, str(options.folder), options.format)
    if not facts.problems:
        return 0
    return fail(
        f"{counted(len(facts.problems), 'problem')} in {options.folder}, see above; until then it is refused", 2
    )


def _mix(options: argparse.Namespace) -> int:
    from timepro.data.mix import mix

    parts = [part.partition("=") for part in options.parts]
    for task, _, manifest in parts:
        if not manifest:
            raise ValueError(f"{task!r}: expected TASK=MANIFEST, for example sed=desed.jsonl")
    count = mix([(task, Path(manifest)) for task, _, manifest in parts], options.out)
    print(f"{options.out}: " + ", ".join(f"{counted(n, 'clip')} for {task}" for task, n in count.items()))
    return 0


def _split(options: argparse.Namespace) -> int:
    from timepro.data.split import split

    parts = []
    for part in options.parts:
        path, _, share = part.rpartition("=")
        try:
            parts.append((Path(path), float(share)))
        except ValueError:
            raise ValueError(f"{part!r}: expected PART=SHARE, for example train.jsonl=0.9") from None
    for path, count in split(options.manifest, parts, options.seed).items():
        print(f"{path}: {counted(count, 'clip')}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from timepro.data.check import TRIM, Rules
    from timepro.data.convert import convert, convert_layout
    from timepro.data.event_files import ReadOptions
    from timepro.data.formats import own
    from timepro.data.labels import read_label_map
    from timepro.data.table import columns_named

    labels = None if options.label_map is None else read_label_map(options.label_map)
    rules = Rules(TRIM if options.trim is None else options.trim, labels)
    if options.action == "table":
        read = ReadOptions(columns_named(options.columns), options.tier)
        layout = own.find(options.labels, options.audio, read, options.split, options.unlisted)
        report = convert_layout(layout, str(options.labels), options.out, rules, options.skip_invalid, options.workers)
    else:
        report = convert(
            options.action, options.root, options.out, rules, options.split, options.skip_invalid, options.workers
        )
    if options.json:
        print_json(_as_json(report, options.out))
    else:
        _print_report(report, options.out, options.format)
    if report.written:
        return 0
    total = sum(report.problems.values())
    advice = "nothing is left to write" if options.skip_invalid else (
        "nothing was written; correct them, or leave those clips out with --skip-invalid"
    )  # fmt: skip
    found = f"{counted(total, 'problem')} in {counted(report.left_out, 'clip')}, {report.clips:,} without"
    return fail(f"{found}; {advice}", 2)


def _as_json(report: Report, out: Path) -> dict[str, Any]:
    from timepro.data.spelling import notes

    return {
        "manifest": out if report.written else None,
        "clips": report.clips,
        "seconds": report.seconds,
        "left_out": report.left_out,
        "splits": report.splits,
        "problems": report.problems,
        "first_problems": report.first,
        "listing": report.listing,
        "repairs": report.repairs.lines(),
        "notes": list(notes(report.labels)),
        "audio": [{"rate": r, "channels": c, "clips": n} for (r, c), n in report.audio.most_common()],
        "not_read": [{"file": file, "why": why} for file, why in report.ignored],
    }


def _print_report(report: Report, out: Path, form: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from timepro.data.spelling import notes
    from timepro.tables import print_lines, print_table

    print_lines([f"not read: {file} ({why})" for file, why in report.ignored], form)
    if report.problems:
        table = Table(title="Problems", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("file", "line", "clip", "problem"):
            table.add_column(heading, justify="right" if heading == "line" else "left", overflow="fold")
        for p in report.first:
            table.add_row(Text(p.file), str(p.line), Text(p.clip), Text(p.message))
        print_table(table, form)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.problems.most_common())
        print_lines([f"problems: {kinds}; all of them: {report.listing}"], form)
    lines = [f"repaired: {line}" for line in report.repairs.lines()]
    lines += [f"note: {line}" for line in notes(report.labels)]
    for (rate, channels), count in report.audio.most_common():
        same = rate == 16000 and channels == 1
        read = "" if same else "; read as their mean at 16000 Hz" if channels > 1 else "; read at 16000 Hz"
        lines.append(f"audio: {counted(count, 'clip')} of {rate} Hz, {counted(channels, 'channel')}{read}")
    if report.written:
        splits = ", ".join(f"{count:,} {split}" for split, count in report.splits.items())
        left = f"; {report.left_out:,} left out" if report.left_out else ""
        lines.append(f"{out}: {counted(report.clips, 'clip')}, {report.seconds / 3600:.2f} hours ({splits}){left}")
    print_lines(lines, form)
