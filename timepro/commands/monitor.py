"""Listen to a stream with a trained checkpoint, for days, and tell what it hears: file, webhook, MQTT, command.

SOURCE is an rtsp://, http:// or https:// address, `mic` or `mic:DEVICE`, `-` for standard input, or a folder that a
recorder writes into. Settings come from a YAML file (--example prints one with every key) and key=value behind it.
SIGTERM ends cleanly: open events get their end, and the next start goes on with what waits for delivery.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timepro.commands.inputs import checkpoint_or_newest
from timepro.hints import fail
from timepro.system.quiet import quiet_transformers

if TYPE_CHECKING:
    from timepro.inference.monitor.build import Built, Ears
    from timepro.inference.monitor.settings import MonitorSettings

EXAMPLES = """\
  timepro monitor --example > monitor.yaml                              a file of settings to begin with
  timepro monitor rtsp://camera/stream --config monitor.yaml --dry-run  check it, and say what would be done
  timepro monitor rtsp://camera/stream --config monitor.yaml            listen; alerts go to monitor/alerts.jsonl
  arecord -f S16_LE -r 16000 | timepro monitor - stream.rate=16000      raw samples from another program
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("source", nargs="?", default="", help="what to listen to; or `source:` in the settings")
    parser.add_argument("overrides", nargs="*", help="settings as key=value, such as rules.cool_down_s=60")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, YAML")
    parser.add_argument("--checkpoint", default="", metavar="FOLDER", help="default: the newest finished run's")
    parser.add_argument("--folder", default="", help="for clips, queues and state (default: monitor)")
    parser.add_argument("--page", type=int, default=0, metavar="PORT", help="show a live page at this port")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would be done, and end")
    parser.add_argument("--example", action="store_true", help="print a file of settings with every key, and end")
    parser.set_defaults(command=run, intermixed=True)


def run(options: argparse.Namespace) -> int:
    """Listen until the end; returns 0, 1 where nothing could be heard, or 2 for what the user can put right."""
    from timepro.inference.monitor.checked import load_settings
    from timepro.inference.monitor.example import EXAMPLE

    if options.example:
        print(EXAMPLE, end="")
        return 0
    if "=" in options.source and not Path(options.source).exists() and "://" not in options.source:
        options.overrides, options.source = [options.source, *options.overrides], ""
    named = {"source": options.source, "checkpoint": options.checkpoint, "folder": options.folder}
    overrides = [*options.overrides, *([f"page.port={options.page}"] if options.page else [])]
    try:
        settings = load_settings(options.config, overrides, named)
        if not settings.source:
            raise ValueError("name a source: timepro monitor SOURCE, or `source:` in the settings")
        return _listen(settings, options.dry_run)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)


def _listen(settings: MonitorSettings, is_dry: bool) -> int:
    from timepro.inference.monitor.checked import check_labels
    from timepro.inference.monitor.ears import checkpoint_ears, known_labels
    from timepro.inference.monitor.feeds import source_kind
    from timepro.inference.monitor.plan import plan

    source_kind(settings.source)
    checkpoint = checkpoint_or_newest(Path(settings.checkpoint) if settings.checkpoint else None)
    labels = known_labels(checkpoint)
    check_labels(settings, labels)
    if is_dry:
        print(plan(settings, checkpoint, labels))
        return 0
    say(f"loading {checkpoint}")
    quiet_transformers()
    return listen(settings, checkpoint_ears(settings, checkpoint, labels))


def listen(settings: MonitorSettings, ears: Ears) -> int:
    """Listen until a signal, or the end of the source; returns the exit code.

    Raises:
        ValueError: the folder is another monitor's, or settings do not fit.
    """
    from timepro.inference.monitor.build import build_monitor
    from timepro.inference.monitor.lock import locked

    with locked(Path(settings.folder)):
        built = build_monitor(settings, ears, say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: built.monitor.stop())
        say(f"listening to {built.monitor.source}; what is kept is in {settings.folder}/; Ctrl-C ends")
        with _page(settings, built):
            built.monitor.run()
    say(built.monitor.summary())
    if built.monitor.finished and not built.monitor.heard_s:
        return fail(f"nothing could be heard: {built.monitor.finished}", 1)
    return 0


@contextmanager
def _page(settings: MonitorSettings, built: Built) -> Iterator[None]:
    """Serve the live page, where it is wanted."""
    if not settings.page.port:
        yield
        return
    from timepro.inference.monitor.checked import secret
    from timepro.inference.monitor.page.server import PageServer, Shown

    page = settings.page
    shown = Shown(built.monitor.status, built.history, built.clips, built.labels, page.hours, built.threshold)
    with PageServer(shown, page.host, page.port, secret(page.token_env, "key page.token_env")) as server:
        say(f"page: {server.address}" + ("?token=..." if page.token_env else ""))
        yield


def say(line: str) -> None:
    """A line for the user, on standard error."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)
