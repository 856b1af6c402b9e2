"""Write one HTML page on finished runs: the comparison, training curves, and every clip with sound and timeline.

With --results it prints tables of the kept results of sweeps instead (experiments/results/): every arm's mean and range
over seeds, its gains with paired bootstrap intervals over clips, and whether the code has changed since.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from timepro.commands.output import add_output, print_json
from timepro.config import experiment_folders
from timepro.hints import fail
from timepro.names import near, require_run
from timepro.plots.files import default_name, page_path

if TYPE_CHECKING:
    from timepro.results.files import Result

EXAMPLES = """\
  timepro report runs/sed_grpo                             one run, before and after RL: runs/sed_grpo/report.html
  timepro report runs/a runs/b --out compare.html          the last stage of each run
  timepro report runs/a --audio 200                        put more clips in with their sound
  timepro report --results                                 tables of all kept results
  timepro report --results sed_grpo_seeds --format latex   those of one sweep, for a paper
  timepro report --results rl_choices --against experiment=rl_pays--soft     against another arm than the first
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument(
        "runs", nargs="*", type=Path, help="folders of finished runs, tested on the same samples; with --results sweeps"
    )
    parser.add_argument("--results", action="store_true", help="print tables of kept results; no page is written")
    parser.add_argument(
        "--against",
        metavar="ARM",
        help="with --results: the arm that the others are compared with (default: the first)",
    )
    parser.add_argument(
        "--out", type=page_path, help="the page, .html (default: in the first run's folder, report.html for one run)"
    )
    parser.add_argument(
        "--audio", type=int, default=24, help="clips whose sound is put into the page (default: %(default)s)"
    )
    add_output(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the page, or print tables; returns 0, or 2 for what the user can put right."""
    if options.results:
        return _print_results(options)
    if options.against:
        return fail("--against is about --results", 2)
    if not options.runs:
        return fail("name the folders of finished runs, or give --results for tables of kept results", 2)
    if options.json or options.format != "text":
        return fail("--json and --format are about --results; a page is HTML", 2)
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


def _print_results(options: argparse.Namespace) -> int:
    from timepro.results.files import read_results
    from timepro.results.tables import as_json, by_sweep, tables_of
    from timepro.tables import print_table

    results, wanted = experiment_folders()[0] / "results", [str(name) for name in options.runs]
    try:
        kept = read_results(results)
        known = list(by_sweep(kept))
        if not kept:
            raise ValueError(f"{results} holds no result yet; `timepro sweep` and `timepro results keep` write them")
        for name in wanted:
            if name not in known:
                raise ValueError(f"no result of a sweep {name} is kept{near(name, known)}; kept: {', '.join(known)}")
        chosen = [one for one in kept if not wanted or one.sweep in wanted]
        if options.against:
            chosen = _with_first(chosen, options.against)
        if options.json:
            print_json(as_json(chosen))
            return 0
        for sweep, own in by_sweep(chosen).items():
            for table in tables_of(sweep, own, mark_changed=True):
                print_table(table, options.format)
    except ValueError as error:
        return fail(str(error), 2)
    return 0


def _with_first(results: list[Result], arm: str) -> list[Result]:
    """The results of those sweeps that have an arm, which comes first. Raises ValueError where none has it."""
    sweeps = {one.sweep for one in results if one.arm == arm}
    if not sweeps:
        arms = list(dict.fromkeys(one.arm for one in results))
        raise ValueError(f"--against: there is no arm {arm}{near(arm, arms)}; arms: {', '.join(arms)}")
    return sorted((one for one in results if one.sweep in sweeps), key=lambda one: (one.sweep, one.arm != arm))
