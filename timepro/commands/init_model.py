"""Give a published checkpoint timestamps: tokens, frozen embeddings, and the layout in its configuration.

Reads Qwen2.5-Omni (3B, 7B), its thinker alone, and Qwen2-Audio, from a folder or by hub name. Weights are streamed, so
memory stays far below the checkpoint's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timepro.commands.inputs import require_absent
from timepro.hints import fail
from timepro.hub import fetch
from timepro.timestamps import INITIALISATIONS, STYLES

EXAMPLES = """\
  timepro init-model Qwen/Qwen2.5-Omni-7B checkpoints/omni-7b          as in the paper
  timepro init-model Qwen/Qwen2-Audio-7B-Instruct checkpoints/q2a --every 5
  timepro init-model FOLDER checkpoints/tokens --answers timestamps    answers in timestamp tokens
  timepro init-model FOLDER checkpoints/hour --style factorised --duration 3600 --every 25
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("source", help="a checkpoint folder, or a hub name")
    parser.add_argument("target", type=Path, help="the folder to write; must not exist")
    parser.add_argument("--stride", type=float, default=0.04, help="seconds between timestamps (default: 0.04)")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds that timestamps cover (default: 30)")
    parser.add_argument(
        "--style",
        choices=tuple(STYLES),
        default="table",
        help="tokens of the timestamps: table has one a time (default, the paper's), factorised one a whole second and "
        "one a fraction, which takes 3,625 for an hour instead of 90,000",
    )
    parser.add_argument("--every", type=int, default=1, help="a timestamp for every N-th audio frame (default: 1)")
    parser.add_argument("--position", choices=("after", "before"), default="after", help="side of the audio frame")
    parser.add_argument("--answers", choices=("digits", "timestamps"), default="digits", help="how answers write times")
    parser.add_argument(
        "--init",
        choices=INITIALISATIONS,
        default="semantic",
        help="how timestamp embeddings start: semantic is the paper's (default), in which times of the same digits in "
        "another order share an embedding; semantic_ordered tells them apart",
    )
    parser.add_argument(
        "--head",
        choices=("digits", "embeddings"),
        default="digits",
        help="how their rows in an untied head start: as the digits' mean (default), or as their own embeddings, for a "
        "fresh decoder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random and smooth starts")
    parser.add_argument("--revision", help="of the hub repository")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the checkpoint; returns the exit code."""
    try:
        require_absent(options.target)
        source = fetch(options.source, options.revision)
        from timepro.init_model import TimestampSettings, init_model

        settings = TimestampSettings(
            options.stride, options.duration, options.every, options.position, options.answers, options.init,
            options.seed, head=options.head, style=options.style,
        )  # fmt: skip
        init_model(source, options.target, settings)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    return 0
