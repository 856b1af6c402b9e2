"""The published checkpoints' configurations, as facts: for plans and tests where no checkpoint is at hand.

Only what decides shapes, positions and token ids. Sources: `config.json` of the repositories named below on the Hugging
Face hub; what a file leaves out (sizes of the audio encoder, the vision tower, Qwen2-Audio's decoder) has the defaults
of `transformers` 5.19 (`Qwen2_5OmniAudioEncoderConfig`, `Qwen2_5OmniVisionEncoderConfig`, `Qwen2Config`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

# Whisper large-v3's encoder (arXiv 2212.04356), in all of them.
_ENCODER = {
    "num_mel_bins": 128, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "d_model": 1280,
    "max_source_positions": 1500,
}  # fmt: skip
_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
_OMNI_TOKENS = {
    "audio_token_index": 151646, "image_token_index": 151655, "video_token_index": 151656,
    "audio_start_token_id": 151647, "audio_end_token_id": 151648, "vision_start_token_id": 151652,
    "vision_end_token_id": 151653, "user_token_id": 872, "pad_token_id": 151643,
}  # fmt: skip


def _omni(hidden: int, layers: int, heads: int, key_value_heads: int, feed_forward: int, rows: int) -> dict[str, Any]:
    """Qwen2.5-Omni's `config.json` without talker and vocoder, which nothing here builds."""
    text = {
        "model_type": "qwen2_5_omni_text", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_value_heads, "intermediate_size": feed_forward,
        "vocab_size": rows, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    thinker = {
        "model_type": "qwen2_5_omni_thinker",
        "audio_config": _ENCODER | {"model_type": "qwen2_5_omni_audio_encoder", "n_window": 100, "output_dim": hidden},
        "vision_config": _VISION | {"model_type": "qwen2_5_omni_vision_encoder", "out_hidden_size": hidden},
        "text_config": text,
        "tie_word_embeddings": False,
        **_OMNI_TOKENS,
    }
    return {"model_type": "qwen2_5_omni", "enable_audio_output": False, "dtype": "bfloat16", "thinker_config": thinker}


_QWEN2_AUDIO = {
    "model_type": "qwen2_audio", "dtype": "bfloat16", "tie_word_embeddings": False, "audio_token_index": 151646,
    "audio_config": _ENCODER | {"model_type": "qwen2_audio_encoder"},
    "text_config": {
        "model_type": "qwen2", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 156032, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip
_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-Omni-3B": _omni(2048, 36, 16, 2, 11008, 151936),
    "Qwen/Qwen2.5-Omni-7B": _omni(3584, 28, 28, 4, 18944, 152064),
    "Qwen/Qwen2-Audio-7B-Instruct": _QWEN2_AUDIO,
}


@dataclass(frozen=True)
class Published:
    """One published checkpoint.

    Args:
        repository: on the Hugging Face hub.
    """

    repository: str

    @property
    def name(self) -> str:
        """Without the owner, "Qwen2.5-Omni-7B" for example."""
        return self.repository.rpartition("/")[2]

    @property
    def config(self) -> dict[str, Any]:
        """As its `config.json`; every time a copy of its own."""
        return copy.deepcopy(_CONFIGS[self.repository])


PUBLISHED = tuple(Published(repository) for repository in _CONFIGS)


def published_named(name: str) -> Published | None:
    """The published checkpoint that a name or a folder's name means; None where it means none, or several.

    Args:
        name: "Qwen/Qwen2.5-Omni-7B", "Qwen2-Audio-7B-Instruct" or, as a folder's, "qwen2_audio_7b".
    """
    wanted = _bare(name.rpartition("/")[2])
    found = [one for one in PUBLISHED if wanted and _bare(one.name).startswith(wanted)]
    return found[0] if len(found) == 1 else None


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
