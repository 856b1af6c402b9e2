"""Where `timepro detect` writes: one table, or a file a recording; looked at before anything is heard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timepro.data.event_formats import FORMATS, EventFormat, event_format, events_text, write_events
from timepro.inference.detections import SourceDetections


@dataclass(frozen=True)
class Output:
    """A format, and where it goes: a path, or None for standard output."""

    form: EventFormat
    out: Path | None

    @classmethod
    def of(cls, name: str | None, out: Path | None, sources: int) -> Output:
        """What the command line asks for.

        Args:
            name: of the format; None to go by the path's ending, and for tsv where there is no path.
            sources: how many recordings there are.

        Raises:
            ValueError: an unknown format, an ending that no or another format has, or several recordings where a file
                holds one.
        """
        form = _by_ending(out) if name is None else event_format(name)
        several = ", ".join(other for other, known in FORMATS.items() if known.several)
        if out is not None and form.several and (out.suffix.lower() != form.ending.lower() or out.is_dir()):
            raise ValueError(f"--out {out}: format {form.name} is one file that ends in {form.ending}")
        one_file = out is None or (out.suffix.lower() == form.ending.lower() and not out.is_dir())
        if not form.several and one_file and sources != 1:
            raise ValueError(
                f"a file of format {form.name} holds one recording, and these are {sources:,}: name a folder with "
                f"--out, or take a format that holds several ({several})"
            )
        return cls(form, out)

    def require_name(self, source: str) -> None:
        """Refuse a recording's name that the format cannot hold, before it is listened to.

        Raises:
            ValueError: saying why.
        """
        if self.form.several:
            events_text(self.form.name, {source: ()})

    def write(self, found: Sequence[SourceDetections], below: bool) -> list[Path]:
        """Write all of it; returns the files, none for standard output.

        Args:
            below: also what stayed below the threshold.

        Raises:
            ValueError: something that the format cannot hold.
            OSError: the files cannot be written.
        """
        recordings = {one.source: sorted([*one.events, *(one.below if below else ())]) for one in found}
        durations = {one.source: one.duration for one in found if one.duration is not None}
        if not found:
            return []
        return write_events(self.form.name, recordings, sys.stdout if self.out is None else self.out, durations)


def _by_ending(out: Path | None) -> EventFormat:
    """The format of a path: the only one with its ending, or tsv where there is no path."""
    if out is None:
        return FORMATS["tsv"]
    fitting = [form for form in FORMATS.values() if form.ending.lower() == out.suffix.lower()]
    if len(fitting) != 1:
        several = " or ".join(form.name for form in fitting)
        raise ValueError(
            f"--out {out}: say which --format, {several}" if fitting
            else f"--out {out}: its ending is that of no format; say which with --format ({', '.join(FORMATS)})"
        )  # fmt: skip
    return fitting[0]
