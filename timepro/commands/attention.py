"""Draw where a model looks when it says a time: its attention to the timestamps of the prompt.

The picture compares it with attention spread evenly over all timestamps, and layers with one another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timepro.commands.inputs import require_checkpoint, require_files
from timepro.hints import fail
from timepro.plots.files import default_name, picture_path
from timepro.system.quiet import quiet_transformers

EXAMPLES = """\
  timepro attention runs/sed_grpo/checkpoint clip.flac                          the model's own answer
  timepro attention CHECKPOINT clip.wav --query "glass breaking" --layer -1     a grounding question, the last layer
  timepro attention CHECKPOINT clip.wav --answer "dog_bark 0.40-1.20"           an answer of yours
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("checkpoint", type=Path, help="a checkpoint folder, with timestamps in its prompts")
    parser.add_argument("clip", type=Path, help="an audio file")
    parser.add_argument("--task", help="whose question is asked: sed, ag, dac, or module:object (default: sed)")
    parser.add_argument("--query", help="what the question is about, for a task that takes a query (default: ag)")
    parser.add_argument("--answer", help="instead of the model's own, in the model's way of writing times")
    parser.add_argument(
        "--layer", type=_layer, default="closest", metavar="N",
        help="a layer from 0, or from the end below 0; mean: of all; closest (the default): the one whose attention "
        "lies closest to the times that it says",
    )  # fmt: skip
    parser.add_argument("--max-tokens", type=int, default=128, help="of the model's answer (default: %(default)s)")
    parser.add_argument(
        "--out", type=picture_path, help="the picture: .png, .jpg, .pdf or .svg (default: a name of its own, here)"
    )
    parser.set_defaults(command=run)


def _layer(text: str) -> int | str | None:
    if text in ("closest", "mean"):
        return text if text == "closest" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a layer's number, and neither mean nor closest") from None


def run(options: argparse.Namespace) -> int:
    """Draw; returns 0, or 2 for what the user can put right."""
    clip, checkpoint = str(options.clip.resolve()), str(options.checkpoint.resolve())
    unseen = (clip, checkpoint, options.answer or "", str(options.layer))
    try:
        require_checkpoint(options.checkpoint)
        require_files([options.clip])
        quiet_transformers()
        from timepro.attention import NEAR, time_attention
        from timepro.plots.attention import draw_attention
        from timepro.tasks import find_task

        task = find_task(options.task or ("ag" if options.query else "sed"), "--task")
        asked = task.question(options.query or "")
        name = default_name("attention", options.clip.stem, options.query or task.name, unseen=unseen)
        out = options.out or Path(name)
        found = time_attention(
            options.checkpoint, options.clip, asked, options.answer, options.layer, options.max_tokens
        )
        draw_attention(out, options.clip, found)
    except (ValueError, FileNotFoundError) as error:
        return fail(str(error), 2)
    print(f"answer: {found.answer}")
    print("shown: " + ("mean over all layers" if found.layer is None else f"layer {found.layer}"))
    for said in found.said:
        share = f"{100 * said.on_timestamps:.1f} % of its attention is on timestamps"
        print(f"{said.seconds:8.2f} s: {share}, {100 * said.near:.1f} % of that within {NEAR} s")
    print(f"spread evenly, {100 * found.chance:.1f} % would be within {NEAR} s")
    print(f"picture: {out}")
    return 0
