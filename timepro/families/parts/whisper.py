"""Whisper-style audio encoders with a projector, as Qwen2-Audio has them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_LONGEST_TIMESCALE = 10_000.0


class ClipEncoder(nn.Module):
    """Encoder and projector as one module, computed over the clip instead of the 30 s that the published code pads to.

    The published encoder lets nothing attend to the padding, so its frames depend on the clip alone, but for the two
    convolutions, which look two mel frames beyond it. With these frames the result is the same.
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


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's position embeddings (arXiv 2212.04356): sines, then cosines, over timescales up to 10,000 positions.

    Returns:
        (length, width).
    """
    timescales = torch.exp(-math.log(_LONGEST_TIMESCALE) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * timescales[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
