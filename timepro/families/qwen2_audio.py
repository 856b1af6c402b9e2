"""Qwen2-Audio: Whisper's encoder with a projector, and a Qwen2 decoder with plain rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.astp import FRAME_RATE, audio_frames
from timepro.families.base import ModelFamily
from timepro.families.decoder import answer_states

# Live names in transformers, and the published checkpoint's, which vLLM's loader expects.
_PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "model.audio_tower.": "audio_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "lm_head.": "language_model.lm_head.",
}


class AudioEncoder(nn.Module):
    """Encoder and projector as one module, computed over the clip instead of the 30 s that the published code pads to.

    The published encoder lets nothing attend to the padding, so its frames depend on the clip alone, but for the two
    convolutions, which look `mel_margin` mel frames beyond it. With these frames the result is the same.
    """

    def __init__(self, audio_tower: nn.Module, multi_modal_projector: nn.Module) -> None:
        super().__init__()
        self.audio_tower, self.multi_modal_projector = audio_tower, multi_modal_projector

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """(B, 128, M) mel frames, of which the first `lengths` (B,) belong to the clip, to (B, L / 2, H)."""
        from transformers.masking_utils import create_bidirectional_mask

        tower: Any = self.audio_tower
        positions = tower.embed_positions.weight
        x = nn.functional.gelu(tower.conv1(mel))
        x[..., 2 * len(positions) :] = 0.0  # the published input ends here, and convolutions see zeros behind it
        x = nn.functional.gelu(tower.conv2(x)).permute(0, 2, 1)[:, : len(positions)]
        x = x + positions[: x.shape[1]]
        inside = torch.arange(x.shape[1], device=x.device)[None] < ((lengths - 1) // 2 + 1)[:, None]
        mask = create_bidirectional_mask(config=tower.config, inputs_embeds=x, attention_mask=inside.long())
        for layer in tower.layers:
            x = layer(x, mask)
        x = tower.avg_pooler(x.permute(0, 2, 1)).permute(0, 2, 1)
        return self.multi_modal_projector(tower.layer_norm(x))


class Qwen2Audio(ModelFamily):
    name = "qwen2_audio"
    model_type = "qwen2_audio"
    vllm_architecture = "TimeProQwen2AudioModel"
    frame_rate = FRAME_RATE
    mel_margin = 2
    decoder_prefix = "model.language_model."
    embedding_name = "language_model.model.embed_tokens.weight"
    head_name = "language_model.lm_head.weight"
    source_types = ("qwen2_audio",)

    def load(self, folder: str | Path, dtype: torch.dtype) -> nn.Module:
        from transformers import Qwen2AudioForConditionalGeneration

        model = Qwen2AudioForConditionalGeneration.from_pretrained(str(folder), dtype=dtype, local_files_only=True)
        if model.config.text_config.tie_word_embeddings:  # vLLM ties them; this class of transformers does not
            model.lm_head.weight = model.get_input_embeddings().weight
        return model.eval()

    def text_side_config(self, config: Any) -> Any:
        return config

    def audio_token_id(self, config: Any) -> int:
        return int(config.audio_token_id)

    def audio_frames(self, mel_frames: int) -> int:
        return audio_frames(mel_frames)

    def audio_encoder(self, model: nn.Module) -> nn.Module:
        return AudioEncoder(model.model.audio_tower, model.model.multi_modal_projector)

    def encode(self, encoder: nn.Module, features: Sequence[Tensor]) -> list[Tensor]:
        lengths = [f.shape[-1] - self.mel_margin for f in features]
        mel = nn.utils.rnn.pad_sequence([f.T for f in features], batch_first=True).transpose(1, 2)
        frames = encoder(mel, torch.tensor(lengths, device=mel.device))
        return [row[: self.audio_frames(n)] for row, n in zip(frames, lengths, strict=True)]

    def text_model(self, model: nn.Module) -> nn.Module:
        return model.model.language_model

    def answer_states(
        self, text_model: nn.Module, inputs_embeds: Tensor, positions: Tensor, mask: Tensor | None, queries: Tensor
    ) -> Tensor:
        return answer_states(text_model, inputs_embeds, positions, mask, queries)

    def config_parts(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return raw, raw["text_config"]

    def checkpoint_name(self, parameter: str) -> str:
        for live, published in _PUBLISHED.items():
            if parameter.startswith(live):
                return published + parameter.removeprefix(live)
        raise ValueError(f"{parameter!r} is no parameter of Qwen2-Audio; this version of transformers is not supported")
