"""Build a checkpoint of a supported family from a pretrained Whisper encoder and a small decoder.

The encoder is a Whisper model of transformers or CTranslate2, or the encoder of a checkpoint of a supported family; the
decoder a pretrained Qwen2 or Llama (SmolLM2, TinyLlama, ...), or `fresh`, a random one with a tokenizer trained on the
words of the task. The result has no timestamps yet: `timepro init-model` adds them, as to a published checkpoint. Its
projector is random and wants a warm-up: sft.encoder_warmup.part=projector.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from timepro.commands.inputs import require_absent
from timepro.hints import command, fail
from timepro.hub import fetch
from timepro.tiny.config import TinyModelConfig

if TYPE_CHECKING:
    from timepro.composing.decoder import Decoder

EXAMPLES = """\
  timepro compose --encoder openai/whisper-small --decoder Qwen/Qwen2.5-0.5B-Instruct --out checkpoints/small
  timepro compose --encoder WHISPER --decoder fresh --soundbank sounds --out checkpoints/tiny
  timepro init-model checkpoints/small checkpoints/small_timestamps
"""
_FRESH = "fresh"
_SIZES = {"hidden": "hidden_size", "layers": "layers", "heads": "heads", "kv-heads": "key_value_heads",
          "feed-forward": "feed_forward"}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments, and name what runs it."""
    own = TinyModelConfig()
    parser.add_argument("--encoder", required=True, metavar="WHISPER", help="a folder, or a hub name")
    parser.add_argument("--decoder", required=True, metavar="LM", help=f"a folder, a hub name, or {_FRESH}")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist")
    parser.add_argument(
        "--family",
        default="",
        help="whose class it becomes (default: the encoder's own)",
    )
    parser.add_argument("--random-encoder", action="store_true", help="the encoder's shape, with random weights")
    parser.add_argument(
        "--encoder-window", type=int, default=0, metavar="FRAMES",
        help="Omni: frames at 50 Hz that the encoder attends over at a time (default: 100; 1500 is Whisper's 30 s)",
    )  # fmt: skip
    fresh = parser.add_argument_group("a fresh decoder")
    for option, name in _SIZES.items():
        fresh.add_argument(f"--{option}", type=int, metavar="N", help=f"(default: {getattr(own, name)})")
    fresh.add_argument("--labels", default="", metavar="A,B,...", help="labels that become one token each")
    fresh.add_argument("--soundbank", type=Path, metavar="FOLDER", help="take labels and captions from a sound bank")
    parser.add_argument("--seed", type=int, default=0, help="of what is random (default: %(default)s)")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the checkpoint; returns the exit code."""
    try:
        require_absent(options.out)
        _require_fitting(options)
        encoder, decoder = fetch(options.encoder, None), None
        if options.decoder != _FRESH:
            decoder = fetch(options.decoder, None)
        from timepro.composing.compose import compose
        from timepro.composing.encoder import read_audio_encoder
        from timepro.families import all_families, family_named

        found = read_audio_encoder(encoder)
        as_whisper = next(family.name for family in all_families() if not family.windowed_encoder)
        family = family_named(options.family or found.family or as_whisper, "--family")
        words, texts = _words(options)
        compose(
            found.randomly() if options.random_encoder else found, _decoder(options, decoder), family, options.out,
            words=words, texts=texts, window=options.encoder_window, seed=options.seed,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        return fail(str(error), 2)
    print(f"wrote {options.out}; next: {command(f'init-model {options.out} FOLDER')}")
    return 0


def _require_fitting(options: argparse.Namespace) -> None:
    """Refuse options that a pretrained decoder would leave unread."""
    if options.decoder == _FRESH:
        return
    names = [*(option.replace("-", "_") for option in _SIZES), "labels", "soundbank"]
    if given := [name.replace("_", "-") for name in names if getattr(options, name)]:
        raise ValueError(f"--{given[0]} is for --decoder {_FRESH}; a pretrained decoder has its own")


def _decoder(options: argparse.Namespace, folder: Path | None) -> Decoder:
    from timepro.composing.decoder import fresh_decoder, read_decoder

    if folder is not None:
        return read_decoder(folder)
    given = {name: getattr(options, option.replace("-", "_")) for option, name in _SIZES.items()}
    if bad := [name for name, value in given.items() if value is not None and value < 1]:
        raise ValueError(f"--{next(o for o, name in _SIZES.items() if name == bad[0])} must be at least 1")
    return fresh_decoder(TinyModelConfig(**{name: value for name, value in given.items() if value is not None}))


def _words(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Labels, and texts of the tasks and captions, for a fresh decoder's tokenizer."""
    from timepro.data.soundbank.layout import read_layout, spoken
    from timepro.tasks.samples import tokenizer_texts

    labels = [label.strip() for label in options.labels.split(",") if label.strip()]
    texts = tokenizer_texts()
    if options.soundbank is not None:
        bank = read_layout(options.soundbank)
        labels += bank.labels
        texts += [text for label in bank.labels for text in (spoken(label), *bank.captions[label])]
    return labels, texts
