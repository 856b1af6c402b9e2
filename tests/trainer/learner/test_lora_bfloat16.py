"""What RL at 1e-6 does to adapters, in bfloat16: the policy's log-probabilities move as in float32."""

from __future__ import annotations

import pytest
import torch

from timepro.features import Processor
from trainer.learner.lora import lora_layers
from trainer.learner.merging import Narrowing
from trainer.learner.policy import Policy, load_policy
from trainer.learner.rows import AnswerTokens, MicroBatch, Row, collate
from trainer.settings.lora import LoraConfig

LORA = LoraConfig(rank=8, alpha=32.0)
STEPS = 120 * 1e-6  # as far as Adam takes every number of B in 120 steps of one direction


def batches(processor: Processor) -> list[MicroBatch]:
    """Groups of random answers whose advantages add up to nothing, after several questions: many tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = [t for t in range(len(processor.tokenizer)) if t not in processor.layout.banned_token_ids]
    made = []
    for question in ("When?", "What?", "Where is it?", "Say it.", "Listen: who?", "Hm?", "Now then", "List."):
        for _ in range(2):
            frames = torch.randn(20, 64, generator=generator)
            prompt = processor.expanded_prompt(question, len(frames))
            chosen = torch.randint(len(tokens), (8, 24), generator=generator)
            answers = [
                AnswerTokens([tokens[int(i)] for i in row], [0.0] * 24, advantage=(-1.0) ** number)
                for number, row in enumerate(chosen)
            ]
            row = Row(prompt, frames, answers)
            made.append(collate([row], processor.audio_token_id, processor.tokenizer.pad_token_id))
    return made


def worth(policy: Policy, made: list[MicroBatch]) -> torch.Tensor:
    """Log-probabilities by advantage, a mean over tokens."""
    return torch.stack([(policy(micro, 1.0)[0] * micro.advantages).mean() for micro in made]).mean()


@pytest.mark.slow
def test_adapters_of_rls_size_move_the_policy_in_bfloat16_as_in_float32(tiny_checkpoint):
    processor = Processor(tiny_checkpoint)
    arguments = (tiny_checkpoint, processor.family, processor.layout)
    made = batches(processor)

    def policy_of(dtype: torch.dtype, lora: LoraConfig | None = LORA) -> Policy:
        return load_policy(*arguments, torch.bfloat16, lora)[0].to(dtype).eval()  # of the same bfloat16 numbers

    exact = policy_of(torch.float32)
    for micro in made:
        ((exact(micro, 1.0)[0] * micro.advantages).mean() / len(made)).backward()
    step = {name: STEPS * layer.lora_B.weight.grad.sign() for name, layer in lora_layers(exact.text_model)}
    rounded, _ = load_policy(*arguments, torch.bfloat16, LORA)
    merged = policy_of(torch.bfloat16, None)
    moved = {}
    with torch.no_grad():
        for who, policy in (("exact", exact), ("rounded", rounded.eval()), ("merged", merged)):
            before = worth(policy, made)
            if who == "merged":  # into the nearest bfloat16 numbers
                whole = {tensor.name: tensor.merge() for tensor in exact.published(Narrowing())}
                for tensor in policy.streamed():
                    if tensor.name in whole:
                        tensor.parameters[0].copy_(whole[tensor.name])
            else:
                for name, layer in lora_layers(policy.text_model):
                    layer.lora_B.weight.copy_(step[name])
            moved[who] = float(worth(policy, made) - before)
    assert moved["exact"] > 1e-3
    assert moved["rounded"] / moved["exact"] == pytest.approx(1.0, abs=0.25), moved
    assert moved["merged"] / moved["exact"] < 0.75, moved  # what sending merged weights comes to
