"""vLLM's own model classes with the Audio-Side Time Prompt: timestamps in the prompt, banned tokens in the logits.

What ASTP changes is in two mixins, which serve every family whose audio placeholder vLLM expands to a flat list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.model_executor.models.qwen2_5_omni_thinker import (
    Qwen2_5OmniThinkerDummyInputsBuilder,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerMultiModalProcessor,
    Qwen2_5OmniThinkerProcessingInfo,
)
from vllm.model_executor.models.qwen2_audio import (
    Qwen2AudioDummyInputsBuilder,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioMultiModalProcessor,
    Qwen2AudioProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing.processor import PromptUpdateDetails

from timepro.astp import AstpLayout, interleave
from timepro.families.qwen2_5_omni import Qwen25Omni
from timepro.families.qwen2_audio import Qwen2Audio


class AstpProcessorMixin:
    """Expands an audio placeholder to interleaved audio frames and timestamps."""

    frame_rate: float

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        layout = AstpLayout.from_config(self.info.get_hf_config())  # type: ignore[attr-defined]
        if not layout.enabled:
            return updates
        return [self._interleaved(update, layout) if update.modality == "audio" else update for update in updates]

    def _interleaved(self, update: Any, layout: AstpLayout) -> Any:
        (audio_token_id,) = update.target

        def replacement(item: int) -> PromptUpdateDetails:
            n_frames = len(update.replacement(item))
            ids = interleave(n_frames, audio_token_id, layout, self.frame_rate)
            return PromptUpdateDetails.select_token_id(ids, audio_token_id)

        return replace(update, replacement=replacement)


class BannedTokensMixin:
    """Gives tokens that an answer must never hold a probability of zero, as the learner does."""

    _banned: torch.Tensor | None = None

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        logits = super().compute_logits(hidden_states)  # type: ignore[misc]
        if logits is None:
            return None
        if self._banned is None:
            layout = AstpLayout.from_config(self.config)  # type: ignore[attr-defined]
            ids = [i for i in layout.banned_token_ids if i < logits.shape[-1]]
            self._banned = torch.tensor(ids, dtype=torch.long, device=logits.device)
        return logits.index_fill_(-1, self._banned, float("-inf"))


class AstpOmniProcessor(AstpProcessorMixin, Qwen2_5OmniThinkerMultiModalProcessor):
    frame_rate = Qwen25Omni.frame_rate


@MULTIMODAL_REGISTRY.register_processor(
    AstpOmniProcessor, info=Qwen2_5OmniThinkerProcessingInfo, dummy_inputs=Qwen2_5OmniThinkerDummyInputsBuilder
)
class TimeProQwen2_5Omni(BannedTokensMixin, Qwen2_5OmniThinkerForConditionalGeneration):
    """The Qwen2.5-Omni thinker with ASTP."""

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        # Interleaved audio is plain text to M-RoPE: consecutive positions, the same in all three dimensions.
        if all(feature.modality == "audio" for feature in mm_features):
            positions = torch.arange(len(input_tokens))
            return positions.expand(3, -1).clone(), 0
        return super().get_mrope_input_positions(input_tokens, mm_features)


class AstpQwen2AudioProcessor(AstpProcessorMixin, Qwen2AudioMultiModalProcessor):
    frame_rate = Qwen2Audio.frame_rate


@MULTIMODAL_REGISTRY.register_processor(
    AstpQwen2AudioProcessor, info=Qwen2AudioProcessingInfo, dummy_inputs=Qwen2AudioDummyInputsBuilder
)
class TimeProQwen2Audio(BannedTokensMixin, Qwen2AudioForConditionalGeneration):
    """Qwen2-Audio with ASTP."""
