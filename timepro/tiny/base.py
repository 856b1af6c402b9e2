"""The small base that ships with the package: it hears what, but not when, and has no timestamp token.

`make train EXP=tiny_base` makes it; the README beside each checkpoint says how it was made and what it can do. A run
adds timestamps to it by the same code as `timepro init-model` adds them to a published checkpoint.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from timepro.tiny.config import TinyModelConfig

FOLDER = Path(__file__).parent / "checkpoints"
_FROM_SCRATCH = (
    "hidden_size", "layers", "heads", "key_value_heads", "feed_forward", "rope_theta", "encoder_mel_bins",
    "encoder_width", "encoder_layers", "encoder_heads", "encoder_feed_forward", "encoder_window",
    "tie_word_embeddings", "vocabulary", "published",
)  # fmt: skip


def base_folder(config: TinyModelConfig) -> Path:
    """The shipped checkpoint of a family.

    Raises:
        ValueError: there is none for this family, or settings that only a model from scratch can have.
    """
    folder = FOLDER / config.family
    if not (folder / "config.json").is_file():
        shipped = ", ".join(sorted(path.parent.name for path in FOLDER.glob("*/config.json"))) or "none"
        raise ValueError(
            f"model.tiny.family is {config.family!r}, of which no small base is shipped (there is: {shipped}); "
            "set model.tiny.from_scratch=true for a random one"
        )
    default = {field.name: getattr(TinyModelConfig(), field.name) for field in fields(TinyModelConfig)}
    if changed := [name for name in _FROM_SCRATCH if getattr(config, name) != default[name]]:
        keys = ", ".join(f"model.tiny.{name}={getattr(config, name)}" for name in changed)
        raise ValueError(
            f"{keys}: the shipped small base is what it is; set model.tiny.from_scratch=true for a random model of "
            "another shape, which takes a longer SFT (experiments/base/tiny_scratch.yaml)"
        )
    return folder


def build_on_base(folder: Path, config: TinyModelConfig) -> list[str]:
    """Write the shipped checkpoint with timestamps.

    Args:
        folder: made here; must not exist.

    Returns:
        what was done, line by line.

    Raises:
        ValueError: the folder exists, and as `base_folder`.
    """
    from timepro.init_model import TimestampSettings, init_model

    settings = TimestampSettings(
        config.timestamps.stride, config.timestamps.duration, config.astp_every, config.astp_position,
        config.answer_style, config.timestamp_init, config.seed, config.astp, head="embeddings",
        style=config.timestamps.style,
    )  # fmt: skip
    said: list[str] = []
    init_model(base_folder(config), folder, settings, said.append)
    for path in folder.glob("*.safetensors"):
        _as_float32(path)
    return said


def _as_float32(path: Path) -> None:
    """Store weights as a CPU trains them: an export keeps its base's type, and must not round what was learnt."""
    from safetensors.torch import load_file, save_file

    save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
