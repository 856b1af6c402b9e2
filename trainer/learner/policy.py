"""The trained part of the model: decoder and head, giving log-probabilities of answer tokens.

The audio encoder is not in here. Frozen, it is a plain replicated module: ZeRO-3 would gather it for every
micro-batch, and its outputs can be kept (`trainer.learner.frames`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timepro.astp import AstpLayout
from timepro.families import ModelFamily
from timepro.families.parts.fused import fuse
from timepro.families.parts.tree_attention import tree_of
from trainer.learner.head import Head
from trainer.learner.loading import WeightSource, load_hollow
from trainer.learner.lora import Streamed, adapter_tensors, add_lora, lora_layers, plain, set_adapters, using
from trainer.learner.merging import Narrowing, merged
from trainer.learner.rows import MicroBatch
from trainer.settings.lora import LoraConfig


class Policy(nn.Module):
    """Decoder and output head of a checkpoint.

    Args:
        model: the Hugging Face model; its text model and head are taken, not copied.
        layout: names the timestamp rows, which are frozen, and the banned tokens.
        lora: adapters instead of full fine-tuning, where its rank is above 0.
        seed: of the adapters' start.
        logit_chunk_mib: see `Head`.
    """

    def __init__(
        self,
        model: Any,
        family: ModelFamily,
        layout: AstpLayout,
        lora: LoraConfig | None = None,
        seed: int = 0,
        logit_chunk_mib: float = 64.0,
    ) -> None:
        super().__init__()
        self.family = family
        self.source: WeightSource | None = None  # of the weights, while they are hollow
        self.published_names = {id(p): family.checkpoint_name(name) for name, p in model.named_parameters()}
        self.text_model: Any = family.text_model(model)
        fuse(self.text_model)
        banned = torch.tensor(layout.banned_token_ids, dtype=torch.long)
        self.lm_head = Head(model.lm_head, banned[banned < model.lm_head.weight.shape[0]], logit_chunk_mib)
        self.embeddings = model.get_input_embeddings()
        self._lora = lora if lora is not None and lora.rank > 0 else None
        if self._lora:
            add_lora(self.text_model, self._lora, seed)
            self.lm_head.requires_grad_(False)
        else:
            self._freeze_timestamps(layout)

    def _freeze_timestamps(self, layout: AstpLayout) -> None:
        """Zero the timestamp rows' gradient. With no weight decay on the embeddings, the rows stay bit-equal."""
        if not layout.enabled:
            return
        first, last = layout.token_ids.start, layout.token_ids.stop

        def without_timestamps(gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            gradient[first:last] = 0.0
            return gradient

        self.embeddings.weight.register_hook(without_timestamps)

    def checkpoint_layers(self) -> None:
        """Keep a layer's input alone for the backward pass (arXiv 1604.06174); the last layer's own part is small."""
        # Not the reentrant kind, which would want an input that needs a gradient: adapters train with none.
        self.text_model.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the batch's K answer tokens.

        Sampled answers are scored at the sampling temperature, supervised ones at 1; banned tokens have no
        probability, exactly as in the worker.

        Returns:
            (K,) log-probabilities with a gradient, (K,) entropies without one.
        """
        embeds = self.embeddings(batch.input_ids)
        embeds = embeds.masked_scatter(batch.audio_mask[..., None], batch.frames.to(embeds.dtype))
        tree = tree_of(batch.segments, batch.branched)
        hidden = self.family.answer_states(self.text_model, embeds, batch.positions, tree, batch.queries)
        chosen = hidden.flatten(0, 1)[batch.sources]
        temperatures = torch.where(batch.supervised, 1.0, temperature)
        return self.lm_head(chosen, batch.targets, temperatures, batch.supervised)

    @property
    def adapter_scale(self) -> float | None:
        """What the adapters' part is multiplied by; None in full fine-tuning."""
        return self._lora.alpha / self._lora.rank if self._lora else None

    def streamed(self) -> Iterator[Streamed]:
        """Tensors that training changes, as workers take them: adapters by their names in the decoder."""
        if self._lora:
            yield from adapter_tensors(self.text_model)
            return
        for parameter in self.parameters():
            if parameter.requires_grad:
                yield plain(parameter, self.published_names[id(parameter)])

    def published(self, narrowing: Narrowing) -> Iterator[Streamed]:
        """Tensors that training changes, as a checkpoint holds them: adapters merged."""
        if not self._lora:
            yield from self.streamed()
            return
        for _, layer in lora_layers(self.text_model):
            yield merged(layer, self.published_names[id(layer.weight)], narrowing)

    def start_from(self, adapter: Mapping[str, Tensor], source: str) -> None:
        """Go on with an adapter, by its tensors' names in the decoder. Before ZeRO-3 takes the policy apart.

        Raises:
            ValueError: it does not fit; `source` names where it comes from.
        """
        set_adapters(self.text_model, adapter, source)

    def keep_start(self) -> None:
        """Keep the adapters as they are now for `as_started`. Before ZeRO-3 takes the policy apart."""
        for _, layer in lora_layers(self.text_model):
            layer.keep_start()

    @contextmanager
    def as_started(self) -> Iterator[None]:
        """The model that training started from, while the context is open: with the kept adapters, or with none."""
        kept = any(layer.start_A is not None for _, layer in lora_layers(self.text_model))
        with using(self.text_model, "start" if kept else "none"):
            yield

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Optimiser groups: no decay for embeddings (frozen rows must not shrink) and for vectors."""
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in self.parameters():
            if not parameter.requires_grad:
                continue
            small = parameter is self.embeddings.weight or parameter.dim() < 2
            (plain if small else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def load_policy(
    folder: Path,
    family: ModelFamily,
    layout: AstpLayout,
    dtype: torch.dtype,
    lora: LoraConfig | None = None,
    seed: int = 0,
    logit_chunk_mib: float = 64.0,
    hollow: bool = False,
) -> tuple[Policy, nn.Module]:
    """The policy and the frozen audio encoder of a checkpoint folder.

    Args:
        hollow: the policy's weights are NaN without memory, until `zero.initialise` reads them (see `loading`).
    """
    if hollow:
        model, source = load_hollow(folder, family, dtype)
    else:
        model, source = family.load(folder, dtype), None
    encoder = family.audio_encoder(model).requires_grad_(False).eval()
    policy = Policy(model, family, layout, lora, seed, logit_chunk_mib)
    policy.source = source
    policy.train()
    return policy, encoder
