"""vLLM's own model classes with the Audio-Side Time Prompt: timestamps in the prompt, banned tokens in the logits.

What ASTP changes is in mixins, which serve every family whose audio placeholder vLLM expands to a flat list; others add
LoRA adapters (`adapters.py`), keep weights for deltas (`kept_weights.py`) and read files as the learner does
(`clip_features.py`). A family names the classes of vLLM that it builds on (`timepro.families`); its own class is an
attribute of this module under the family's architecture, made when it is first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import supports_mrope
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing.processor import PromptUpdateDetails

from rollout.adapters import AdaptersMixin
from rollout.clip_features import ClipFeaturesMixin, FileClipsMixin
from rollout.kept_weights import KeptWeightsMixin
from timepro.astp import AstpLayout, interleave
from timepro.families import ModelFamily, all_families


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


class OwnHeadMixin:
    """Refuses weights with a head of its own where `config.json` ties it to the embeddings: vLLM drops such a head.

    The learner would go on with the head, and workers answer with the embeddings in its place.
    """

    head_name: str  # published

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Any:
        return super().load_weights(self._with_place(weights))  # type: ignore[misc]

    def _with_place(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            if name == self.head_name and _has_tied_head(self):
                raise ValueError(
                    f"the weights hold {name}, but the checkpoint's config.json, or a default of what it leaves out, "
                    "ties the output head to the input embeddings (tie_word_embeddings), and vLLM would drop the "
                    "tensor; write the folder again with timepro init-model, which sets the key as the weights are"
                )
            yield name, tensor


def _has_tied_head(model: Any) -> bool:
    tables = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
    embeddings = {id(table.weight) for table in tables if not isinstance(table, ParallelLMHead)}
    heads = [table for table in tables if isinstance(table, ParallelLMHead)]
    return not heads or any(id(head.weight) in embeddings for head in heads)


class ConsecutivePositionsMixin:
    """For models with M-RoPE: interleaved audio is plain text to it, as on the learner's side."""

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        if all(feature.modality == "audio" for feature in mm_features):
            return torch.arange(len(input_tokens)).expand(3, -1).clone(), 0
        return super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc]


def model_class(family: ModelFamily) -> type:
    """A family's vLLM class with ASTP, its multimodal processor registered.

    Raises:
        ValueError: this vLLM has no such module or class.
    """
    names = family.vllm
    try:
        module = importlib.import_module(names.module)
        model, processor, info, dummy_inputs = (
            getattr(module, name) for name in (names.model, names.processor, names.info, names.dummy_inputs)
        )
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"family {family.name}: this version of vLLM does not have what its `vllm` names ({error}); "
            "install the version in timepro/environment, or mend the family"
        ) from error
    mixins: tuple[type, ...] = (AdaptersMixin, KeptWeightsMixin, BannedTokensMixin, OwnHeadMixin)
    mixins += (ConsecutivePositionsMixin,) if supports_mrope(model) else ()
    own = {"__module__": __name__, "__doc__": f"{names.model} with ASTP.", "head_name": family.head_name}
    made = type(family.vllm_architecture, (*mixins, model), own)
    expands = type(
        f"Astp{names.processor}",
        (AstpProcessorMixin, FileClipsMixin, processor),
        {"__module__": __name__, "frame_rate": family.frame_rate},
    )
    short = type(f"Clip{names.info}", (ClipFeaturesMixin, info), {"__module__": __name__})
    return MULTIMODAL_REGISTRY.register_processor(expands, info=short, dummy_inputs=dummy_inputs)(made)


def __getattr__(name: str) -> type:
    """The class of a family's architecture: vLLM asks for it by this name in each of its processes."""
    for family in all_families():
        if family.vllm_architecture == name:
            return globals().setdefault(name, model_class(family))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
