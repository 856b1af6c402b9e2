"""What a pass keeps by the plan, beside what autograd really saves in one on small models of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from timepro.features import Processor
from trainer.launcher.plan.architecture import of_folder
from trainer.launcher.plan.passes import How, Pass, kept_bytes, last_layer_bytes
from trainer.learner.policy import load_policy
from trainer.learner.rows import AnswerTokens, Row, collate
from trainer.settings.lora import LoraConfig

PROMPT, ANSWER, ROWS = 300, 60, 2


@pytest.fixture(params=["tiny_checkpoint", "tiny_qwen2_audio"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("answers", [1, 4])
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autograd_saves_what_the_plan_counts(folder: Path, answers: int, rank: int, dtype: torch.dtype) -> None:
    lora = LoraConfig(rank=rank)
    processor = Processor(folder)
    policy, _ = load_policy(folder, processor.family, processor.layout, dtype, lora)
    token = processor.eos_token_id
    frames = torch.zeros(0, policy.embeddings.embedding_dim)
    row = Row([token] * PROMPT, frames, [AnswerTokens([token] * ANSWER)] * answers)
    micro = collate([row] * ROWS, processor.audio_token_id, processor.tokenizer.pad_token_id)
    saved = Saved(policy)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        logprobs, _ = policy(micro, 1.0)
    assert logprobs.requires_grad
    decoder = of_folder(folder).decoder
    how = How(dtype.itemsize, rank == 0, rank, len(lora.targets))
    one = Pass(ROWS, row.length, answers, ANSWER)
    logits = 4 * decoder.rows * one.answer_tokens  # one chunk's are kept; the plan counts them apart
    counted = kept_bytes(decoder, how, one) + last_layer_bytes(decoder, how, one)
    assert saved.bytes - logits == pytest.approx(counted, rel=0.1)


class Saved:
    """Bytes of what autograd saves, every piece of memory once, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._seen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._kept: list[Tensor] = []  # so that no memory is used twice

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._kept.append(tensor)
            self.bytes += storage.nbytes()
        return tensor
