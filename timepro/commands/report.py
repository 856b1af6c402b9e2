"""Write one HTML page on finished runs: the comparison, training curves, and every clip with sound and timeline."""

from __future__ import annotations

import argparse
from pathlib import Path

from timepro.hints import fail
from timepro.names import require_run
from timepro.plots.files import default_name, page_path

EXAMPLES = """\
  timepro report runs/sed_grpo                             one run, before and after RL: runs/sed_grpo/report.html
  timepro report runs/a runs/b --out compare.html          the last stage of each run
  timepro report runs/a --audio 200                        put more clips in with their sound
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, tested on the same samples")
    parser.add_argument(
        "--out", type=page_path, help="the page, .html (default: in the first run's folder, report.html for one run)"
    )
    parser.add_argument(
        "--audio", type=int, default=24, help="clips whose sound is put into the page (default: %(default)s)"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the page; returns 0, or 2 for what the user can put right."""
    others = [run.resolve().name for run in options.runs[1:]]
    out = options.out or options.runs[0] / default_name("report", *others, ending=".html")
    try:
        for folder in options.runs:
            require_run(folder)
        from timepro.report import write_report

        size = write_report(options.runs, out, options.audio)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)
    print(f"{out}: {size / 2**20:.1f} MiB; open it in a browser")
    return 0
