"""Detection's command line: `timepro.commands.detect`, and a vLLM server as the one who answers."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import timepro.commands.detect as recordings

if TYPE_CHECKING:
    from timepro.inference.answering import Backend

__doc__ = recordings.__doc__
EXAMPLES = (
    recordings.EXAMPLES
    + """\
  timepro detect night.flac --server http://gpu-box:8000             a vLLM server answers
"""
)
TOKEN_VARIABLE = "TIMEPRO_SERVE_TOKEN"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    recordings.configure(parser)
    parser.add_argument(
        "--server", metavar="URL",
        help="a vLLM server that has loaded the same checkpoint (timepro serve), in place of this process; its token "
        f"in {TOKEN_VARIABLE}",
    )  # fmt: skip
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Detect; returns the exit code."""
    if not options.server:
        return recordings.run(options)

    def backend() -> Backend:
        from rollout.detection import VllmBackend

        return VllmBackend(options.server, os.environ.get(TOKEN_VARIABLE))

    return recordings.run(options, backend)
