"""Serve a checkpoint: a page, POST /v1/events, and OpenAI's chat with input_audio, until Ctrl-C or SIGTERM.

The page at / takes a file or the microphone and shows what sounds when. Programs POST a recording to /v1/events
(described at /docs), or chat as with any vLLM server. /health and /metrics are for whoever watches over it.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rollout.events_api.settings import ServeSettings
from timepro.commands.inputs import require_checkpoint
from timepro.hints import fail

EXAMPLES = """\
  timepro serve runs/sed_grpo/checkpoint                                 a page at http://127.0.0.1:8000
  timepro serve runs/sed_grpo/checkpoint --host 0.0.0.0 --token-file token    for others, who need the token
  timepro serve runs/sed_grpo/checkpoint --vllm="--max-num-seqs 16"      with options of vLLM's own
"""
_PLAIN = ServeSettings(checkpoint="")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="such as runs/NAME/checkpoint")
    parser.add_argument("--host", default=_PLAIN.host, help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=_PLAIN.port, help="0: a free one (default: %(default)s)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="requests must bring the token in it; made where it is missing. Beyond this machine a token is a must; "
        "the variable TIMEPRO_SERVE_TOKEN may hold it instead",
    )  # fmt: skip
    parser.add_argument(
        "--at-once", type=_count, default=_PLAIN.at_once, metavar="N",
        help="recordings that are listened to at a time (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=_count_or_none, default=_PLAIN.queue, metavar="N",
        help="requests that may wait; more are answered with 429 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-upload-mib", type=_count, default=_PLAIN.max_upload_mib, metavar="MIB",
        help="largest recording (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-audio", type=_seconds, default=_PLAIN.max_audio_s, metavar="SECONDS",
        help="longest recording (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=_seconds, default=_PLAIN.time_limit_s, metavar="SECONDS",
        help="of a request, waiting included (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--threads", type=_count, default=2, metavar="N", help="on a CPU (default: %(default)s)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="the server's log (default: in a temporary folder)")
    parser.add_argument(
        "--vllm", type=shlex.split, default=[], metavar="OPTIONS", help='further options of vLLM: --vllm="--seed 1"'
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Serve until it is ended; returns 0 then, 1 where the server failed, 2 for what the user can put right."""
    try:
        require_checkpoint(options.checkpoint)
        from rollout.events_api.launch import serve

        return serve(options)
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    except RuntimeError as error:
        return fail(str(error), 1)


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _port(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
