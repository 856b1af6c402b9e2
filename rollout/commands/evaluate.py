"""Score a checkpoint on a manifest, or predicted events against reference events.

With --checkpoint FOLDER the one file is a manifest: the checkpoint is asked its task's questions about every clip, and
its answers are scored as at the end of a run and kept as a file of predictions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timepro.commands.evaluate as files
from timepro.commands.output import add_output
from timepro.hints import fail

EXAMPLES = (
    files.EXAMPLES
    + """\
  timepro evaluate --checkpoint runs/sed_grpo/checkpoint test.jsonl --samples 8    ask a model, drawn answers too
  timepro evaluate --checkpoint runs/sed_grpo/checkpoint test.jsonl --controls     does it listen?
"""
)
__doc__ += f"\nWithout --checkpoint:\n{files.__doc__.partition(chr(10))[2]}"
_SHARED = ("help", "predictions", "reference", "json", "format", "resamples")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    files.configure(parser)
    add_output(parser)
    known = {action.dest for action in parser._actions}
    asking = parser.add_argument_group("asking a checkpoint")
    asking.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="such as runs/NAME/checkpoint")
    asking.add_argument(
        "--task",
        action="append",
        metavar="TASK",
        help="sed, ag, dac, or module:object; may be given again (default: what it was trained for, or sed)",
    )
    asking.add_argument(
        "--samples", type=files.whole_number, default=0, metavar="N",
        help="draw N answers a clip, too: their mean, the best of them, and with classes PSDS (sed_scores_eval)",
    )  # fmt: skip
    asking.add_argument(
        "--temperature", type=_above_zero, default=1.0, metavar="T", help="of the drawn answers (default: %(default)s)"
    )
    asking.add_argument(
        "--controls", action="store_true",
        help="ask again about silence, shifted audio and other clips: does it listen? two to four times the work",
    )  # fmt: skip
    asking.add_argument(
        "--sentence-encoder", type=Path, metavar="FOLDER",
        help="a sentence-transformers model: do captions with an IoU of 0.3, 0.5, 0.7 mean the right thing?",
    )  # fmt: skip
    asking.add_argument("--max-tokens", type=_count, default=256, metavar="N", help="of an answer (256)")
    asking.add_argument(
        "--backend", choices=("auto", "vllm", "transformers"), default="auto",
        help="a vLLM worker, or transformers in this process (default: vLLM where it is installed)",
    )  # fmt: skip
    asking.add_argument(
        "--out", type=_predictions_path, metavar="FILE.jsonl", help="the answers (default: a name of its own, here)"
    )
    own = {action.dest for action in parser._actions} - known
    parser.set_defaults(command=lambda options: run(options, parser, known - set(_SHARED), own - {"checkpoint"}))
    parser.set_defaults(intermixed=True)


def _above_zero(text: str) -> float:
    value = files.at_least_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError("a temperature of 0 draws the same answer again and again; give one above 0")
    return value


def _count(text: str) -> int:
    value = files.whole_number(text)
    if value == 0:
        raise argparse.ArgumentTypeError("an answer needs at least 1 token")
    return value


def _predictions_path(text: str) -> Path:
    if Path(text).suffix != ".jsonl":
        raise argparse.ArgumentTypeError(f"{text!r}: answers are written as JSON lines; give a name ending in .jsonl")
    return Path(text)


def run(options: argparse.Namespace, parser: argparse.ArgumentParser, of_files: set[str], of_asking: set[str]) -> int:
    """Print the scores; returns the exit code."""

    def given(names: set[str]) -> list[str]:
        changed = (name for name in sorted(names) if getattr(options, name, None) != parser.get_default(name))
        return [f"--{name.replace('_', '-')}" for name in changed]

    asks = options.checkpoint is not None
    wrong = given(of_files if asks else of_asking)
    try:
        if asks and options.predictions is not None:
            raise ValueError("--checkpoint takes one file, the manifest: the predictions are the checkpoint's own")
        if not asks and options.predictions is None:
            raise ValueError(
                "one file alone: give PREDICTIONS and REFERENCE, or --checkpoint FOLDER and a manifest to ask a model"
            )
        if asks and wrong:
            raise ValueError(
                f"{', '.join(wrong)} cannot stand beside --checkpoint, which scores as a run does; evaluate the file "
                "of its answers with it afterwards"
            )
        if wrong:
            raise ValueError(f"{', '.join(wrong)} needs --checkpoint FOLDER, whose answers it is about")
        if not asks:
            return files.run(options)
        from rollout.checkpoint_scores import score_checkpoint

        return score_checkpoint(options)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    except RuntimeError as error:  # a worker that did not start, or answered nothing
        return fail(str(error), 1)
