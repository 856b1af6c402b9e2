"""Qwen2.5-Omni, the thinker: Whisper-style audio encoder in blocks of two seconds, Qwen2 decoder with M-RoPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.astp import FRAME_RATE, audio_frames
from timepro.families.base import ModelFamily
from timepro.families.decoder import answer_states


class Qwen25Omni(ModelFamily):
    name = "qwen2_5_omni"
    model_type = "qwen2_5_omni"
    vllm_architecture = "TimeProQwen2_5OmniModel"
    frame_rate = FRAME_RATE
    decoder_prefix = "model."
    embedding_name = "thinker.model.embed_tokens.weight"
    head_name = "thinker.lm_head.weight"
    source_types = ("qwen2_5_omni", "qwen2_5_omni_thinker")

    def load(self, folder: str | Path, dtype: torch.dtype) -> nn.Module:
        from transformers import Qwen2_5OmniThinkerForConditionalGeneration

        model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            str(folder), dtype=dtype, local_files_only=True
        )
        return model.eval()

    def text_side_config(self, config: Any) -> Any:
        return getattr(config, "thinker_config", config)

    def audio_token_id(self, config: Any) -> int:
        return int(self.text_side_config(config).audio_token_index)

    def audio_frames(self, mel_frames: int) -> int:
        return audio_frames(mel_frames)

    def audio_encoder(self, model: nn.Module) -> nn.Module:
        return model.audio_tower

    def encode(self, encoder: nn.Module, features: Sequence[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([f.shape[-1] for f in features], device=features[0].device)
        frames = encoder(torch.cat(list(features), dim=-1), feature_lens=lengths).last_hidden_state
        return list(frames.split([self.audio_frames(int(n)) for n in lengths]))

    def text_model(self, model: nn.Module) -> nn.Module:
        return model.model

    def answer_states(
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, mask: Tensor | None, queries: Tensor
    ) -> Tensor:
        # Audio-only prompts have the same consecutive position in all three M-RoPE dimensions, timestamps included.
        return answer_states(text_model, inputs_embeds, positions.expand(3, -1, -1), mask, queries)

    def whole_config(self, raw: dict[str, Any]) -> dict[str, Any]:
        if raw["model_type"] == "qwen2_5_omni_thinker":
            raw = {"model_type": self.model_type, "architectures": ["Qwen2_5OmniModel"], "thinker_config": raw}
        raw["enable_audio_output"] = False  # without talker and vocoder, whose weights are not kept
        return raw

    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return raw["thinker_config"], raw["thinker_config"]["text_config"]

    def kept_name(self, published: str) -> str | None:
        if published.startswith(("talker.", "token2wav.")):
            return None
        return published if published.startswith("thinker.") else f"thinker.{published}"

    def checkpoint_name(self, parameter: str) -> str:
        return f"thinker.{parameter}"
