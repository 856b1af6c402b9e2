"""Rows with shared prompts give what plain sequences give: the policy against transformers' own forward pass."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from reference_models import load_reference, reference_logits
from timepro.astp import AstpLayout
from timepro.families.parts.tree import PADDING, PROMPT
from timepro.features import Processor
from timepro.tiny.build import build_tiny_checkpoint
from timepro.tiny.config import TimestampsConfig, TinyModelConfig
from trainer.learner.policy import Policy, load_policy
from trainer.learner.rows import (
    AnswerTokens,
    Row,
    collate,
    empty_like,
    plan_micro_batches,
    split_rows,
)


@dataclass
class Setup:
    """One loaded checkpoint, and transformers' model of it for reference."""

    processor: Processor
    policy: Policy
    encoder: torch.nn.Module
    reference: torch.nn.Module

    def prompt(self, question: str, features: Tensor) -> list[int]:
        family = self.processor.family
        n_frames = family.audio_frames(features.shape[1] - family.mel_margin)
        return self.processor.expanded_prompt(question, n_frames)

    @torch.no_grad()
    def row(self, question: str, features: Tensor, answers: list[AnswerTokens]) -> Row:
        (frames,) = self.processor.family.encode(self.encoder, [features])
        return Row(self.prompt(question, features), frames, answers)

    def batch(self, rows):
        return collate(rows, self.processor.audio_token_id, self.processor.tokenizer.pad_token_id)

    def score(self, rows, temperature=1.0) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.policy(self.batch(rows), temperature)


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen2_audio"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def setup(folder):
    processor = Processor(folder)
    policy, encoder = load_policy(folder, processor.family, processor.layout, torch.float32)
    return Setup(processor, policy, encoder, load_reference(processor.family.name, folder))


def clip(setup, seconds, seed):
    waveform = np.random.default_rng(seed).normal(0.0, 0.1, round(seconds * 16000)).astype(np.float32)
    return setup.processor.features_of(waveform)


def answers_of(setup, *texts, **given):
    return [AnswerTokens(setup.processor.answer_ids(text), **given) for text in texts]


SHORT, LONG, TIMES = "none", "<0.40><0.92>dog_bark\n<1.04><1.20>siren", "<0.00><29.96>engine"


@torch.no_grad()
def plain(setup, features, prompt, tokens, temperature=1.0):
    """Log-probabilities and entropies of one answer, by one plain forward pass of the published class."""
    processor = setup.processor
    logits = reference_logits(
        processor.family.name, setup.reference, features, prompt + tokens, processor.audio_token_id, len(prompt)
    )
    return from_logits(setup, logits[len(prompt) - 1 : -1], tokens, temperature)


def from_logits(setup, logits, tokens, temperature):
    allowed = [i for i in range(logits.shape[-1]) if i not in set(setup.processor.layout.banned_token_ids)]
    logprobs, entropies = [], []
    for scores, token in zip(logits.double().numpy() / temperature, tokens, strict=True):
        shifted = scores[allowed] - scores[allowed].max()
        normaliser = math.log(np.exp(shifted).sum())
        p = np.exp(shifted - normaliser)
        logprobs.append(shifted[allowed.index(token)] - normaliser if token in allowed else -math.inf)
        entropies.append(-(p * np.log(p)).sum())
    return torch.tensor(logprobs), torch.tensor(entropies)


def assert_like_plain(setup, found, cases, temperature=1.0):
    """`cases`: (features, prompt, tokens) of every answer in the batch's order."""
    expected = [plain(setup, *case, temperature) for case in cases]
    torch.testing.assert_close(found[0].double(), torch.cat([e[0] for e in expected]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[1].double(), torch.cat([e[1] for e in expected]), rtol=0, atol=1e-5)


def test_a_prompt_with_answers_of_different_lengths_scores_like_plain_sequences(setup):
    features = clip(setup, 2.4, 0)
    row = setup.row("What?", features, answers_of(setup, LONG, SHORT, TIMES, LONG))
    found = setup.score([row])
    assert len(found[0]) == sum(len(a.token_ids) for a in row.answers)
    assert_like_plain(setup, found, [(features, row.prompt_ids, a.token_ids) for a in row.answers])


def test_a_training_pass_gives_the_very_log_probabilities_of_one_without_gradients(setup):
    """So an update against the learner's own need not compute them before."""
    features = clip(setup, 2.4, 0)
    batch = setup.batch([setup.row("What?", features, answers_of(setup, LONG, SHORT)) for _ in range(2)])
    setup.policy.eval()
    with torch.no_grad():
        before, _ = setup.policy(batch, 0.7)
    setup.policy.train()
    trained, _ = setup.policy(batch, 0.7)
    assert trained.requires_grad and torch.equal(trained.detach(), before)


@pytest.mark.parametrize("most_answers", [1, 3])  # of 1: plain causal attention in place of the tree's mask
@pytest.mark.parametrize("temperature", [0.5, 1.3])
def test_rows_of_different_lengths_in_one_batch_score_like_plain_sequences(setup, temperature, most_answers):
    clips = [clip(setup, seconds, seed) for seconds, seed in ((0.5, 1), (4.2, 2), (1.0, 3))]
    rows = [
        setup.row("When does this sound occur: siren?", clips[0], answers_of(setup, SHORT)),
        setup.row("What?", clips[1], answers_of(setup, TIMES, LONG, SHORT)[:most_answers]),
        setup.row("Where was it, and which one?", clips[2], answers_of(setup, LONG, LONG)[:most_answers]),
    ]
    assert setup.batch(rows).branched == (most_answers > 1)
    cases = [(c, row.prompt_ids, a.token_ids) for c, row in zip(clips, rows, strict=True) for a in row.answers]
    assert_like_plain(setup, setup.score(rows, temperature), cases, temperature)


def test_an_answer_of_one_token_scores_like_a_plain_sequence(setup):
    features = clip(setup, 1.0, 4)
    stop = [setup.processor.eos_token_id]
    row = setup.row("What?", features, [AnswerTokens(stop), *answers_of(setup, LONG), AnswerTokens(stop)])
    assert_like_plain(setup, setup.score([row]), [(features, row.prompt_ids, a.token_ids) for a in row.answers])


def test_a_sampled_audio_placeholder_takes_no_frame_and_has_no_probability(setup):
    processor, features = setup.processor, clip(setup, 1.0, 5)
    tokens = [*processor.tokenizer("none").input_ids, processor.audio_token_id, *processor.answer_ids("siren")]
    row = setup.row("What?", features, [AnswerTokens(tokens), *answers_of(setup, LONG)])
    other = setup.row("Which?", features, answers_of(setup, SHORT))
    logprobs, _ = setup.score([row, other])
    # transformers merges a frame into every placeholder, so the reference gets merged embeddings.
    ids = torch.tensor(row.prompt_ids + tokens)
    with torch.no_grad():
        embeddings = setup.reference.get_input_embeddings()(ids)
        places = [i for i, token in enumerate(row.prompt_ids) if token == processor.audio_token_id]
        embeddings[places] = row.frames
        logits = setup.reference(inputs_embeds=embeddings[None], use_cache=False).logits[0]
    expected, _ = from_logits(setup, logits[len(row.prompt_ids) - 1 : -1], tokens, 1.0)
    assert torch.isinf(expected).sum() == 1
    torch.testing.assert_close(logprobs[: len(tokens)].double(), expected, rtol=0, atol=1e-5)
    later = ((row, row.answers[1]), (other, other.answers[0]))
    rest = [(features, of.prompt_ids, answer.token_ids) for of, answer in later]
    torch.testing.assert_close(
        logprobs[len(tokens) :].double(), torch.cat([plain(setup, *case)[0] for case in rest]), rtol=0, atol=1e-5
    )


def test_allowed_tokens_share_all_probability_and_banned_ones_have_none(setup):
    features, banned = clip(setup, 0.5, 6), set(setup.processor.layout.banned_token_ids)
    size = setup.reference.lm_head.weight.shape[0]
    row = setup.row("What?", features, [AnswerTokens([token]) for token in range(size)])
    logprobs, _ = setup.score([row])
    assert {i for i in range(size) if logprobs[i] == -math.inf} == banned
    assert logprobs.double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_supervised_answers_are_scored_at_temperature_one(setup):
    features = clip(setup, 1.0, 7)
    sampled, supervised = answers_of(setup, LONG), answers_of(setup, LONG, supervised=True)
    logprobs, entropies = setup.score([setup.row("What?", features, sampled + supervised)], temperature=0.5)
    n = len(sampled[0].token_ids)
    case = (features, setup.prompt("What?", features), sampled[0].token_ids)
    for part, temperature in ((slice(0, n), 0.5), (slice(n, None), 1.0)):
        assert_like_plain(setup, (logprobs[part], entropies[part]), [case], temperature)


def test_log_probabilities_change_with_the_audio(setup):
    answers = answers_of(setup, LONG, SHORT)
    one, other = (setup.row("What?", clip(setup, 1.0, seed), answers) for seed in (8, 9))
    assert one.prompt_ids == other.prompt_ids
    assert (setup.score([one])[0] - setup.score([other])[0]).abs().max() > 1e-3


def test_answers_do_not_see_each_other(setup):
    features = clip(setup, 1.0, 10)
    first = answers_of(setup, LONG)
    n = len(first[0].token_ids)
    with_one = setup.score([setup.row("What?", features, first + answers_of(setup, SHORT))])[0]
    with_other = setup.score([setup.row("What?", features, first + answers_of(setup, TIMES, LONG))])[0]
    torch.testing.assert_close(with_one[:n], with_other[:n], rtol=0, atol=1e-5)


def gradients(policy, batch):
    policy.zero_grad(set_to_none=True)
    logprobs, _ = policy(batch, 0.9)
    logprobs.sum().backward()
    found = {t.name: t.parameters[0].grad.clone() for t in policy.streamed() if t.parameters[0].grad is not None}
    policy.zero_grad(set_to_none=True)
    return found


def test_timestamp_embeddings_get_no_gradient_and_all_else_what_it_would_get(setup, folder):
    batch = setup.batch([setup.row("What?", clip(setup, 1.0, 11), answers_of(setup, LONG, TIMES))])
    layout = setup.processor.layout
    rows = slice(layout.first_token_id, layout.first_token_id + 750)
    model = setup.processor.family.load(folder, torch.float32)
    free = Policy(model, setup.processor.family, AstpLayout(enabled=False, banned_token_ids=layout.banned_token_ids))
    frozen, expected = gradients(setup.policy, batch), gradients(free, batch)
    embeddings, lm_head = setup.policy.embeddings.weight, setup.policy.lm_head.weight
    name, head = (setup.policy.published_names[id(weight)] for weight in (embeddings, lm_head))
    assert expected[name][rows].abs().max() > 1e-3
    assert torch.count_nonzero(frozen[name][rows]) == 0
    expected[name][rows] = 0.0
    assert frozen.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(frozen[key], gradient, rtol=1e-5, atol=1e-6, msg=key)
    assert expected[head][rows].abs().max() > 1e-3


def test_rows_of_seconds_and_fractions_get_no_gradient_either(tmp_path):
    tiny = TinyModelConfig(
        hidden_size=64, heads=2, key_value_heads=1, encoder_width=32, encoder_layers=1, encoder_heads=2, layers=1,
        timestamps=TimestampsConfig(style="factorised"),
    )  # fmt: skip
    build_tiny_checkpoint(tmp_path / "factorised", tiny, ["siren"], ["What?"])
    processor = Processor(tmp_path / "factorised")
    policy, encoder = load_policy(tmp_path / "factorised", processor.family, processor.layout, torch.float32)
    setup = Setup(processor, policy, encoder, policy)
    batch = setup.batch([setup.row("What?", clip(setup, 1.5, 13), answers_of(setup, "<0.40>siren<1.24>"))])
    rows = list(processor.layout.token_ids)
    assert len(rows) == 55 and len(set(batch.input_ids.unique().tolist()) & set(rows)) == 2 + 25
    found = gradients(policy, batch)
    frozen = found[policy.published_names[id(policy.embeddings.weight)]]
    assert torch.count_nonzero(frozen[rows]) == 0
    assert torch.count_nonzero(frozen[processor.tokenizer.convert_tokens_to_ids("siren")]) > 0
    assert torch.count_nonzero(found[policy.published_names[id(policy.lm_head.weight)]][rows]) > 0


def test_logits_in_chunks_change_neither_values_nor_gradients(setup, monkeypatch):
    batch = setup.batch([setup.row("What?", clip(setup, 1.0, 12), answers_of(setup, LONG, SHORT, TIMES))])
    whole, expected = setup.policy(batch, 0.9), gradients(setup.policy, batch)
    monkeypatch.setattr(setup.policy.lm_head, "chunk", 4)
    cut, found = setup.policy(batch, 0.9), gradients(setup.policy, batch)
    torch.testing.assert_close(cut[0], whole[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(cut[1], whole[1], rtol=0, atol=1e-5)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5, msg=key)


def test_trained_parameters_are_the_checkpoints_without_its_towers(setup, folder):
    with safe_open(str(folder / "model.safetensors"), framework="pt") as weights:
        names = set(weights.keys())
    towers = {n for n in names if any(part in n for part in ("audio_tower.", "multi_modal_projector.", "visual."))}
    trained = [tensor.name for tensor in setup.policy.streamed()]
    assert len(trained) == len(set(trained))
    assert set(trained) == names - towers
    assert not any(p.requires_grad for p in setup.encoder.parameters())


def test_embeddings_and_vectors_do_not_decay(setup):
    decayed, plain_group = setup.policy.parameter_groups(0.1)
    assert (decayed["weight_decay"], plain_group["weight_decay"]) == (0.1, 0.0)
    embeddings = setup.policy.embeddings.weight
    assert any(p is embeddings for p in plain_group["params"])
    assert all(p.dim() >= 2 and p is not embeddings for p in decayed["params"])
    assert len(decayed["params"]) + len(plain_group["params"]) == len(list(setup.policy.streamed()))


def test_collate_carries_each_answers_numbers_to_its_tokens():
    answers = [
        AnswerTokens([5, 6, 7], [-0.1, -0.2, -0.3], advantage=1.5),
        AnswerTokens([8], supervised=True, weight=0.25),
    ]
    plain_row = Row([3], torch.zeros(0, 4), [AnswerTokens([4, 4], [-1.0, -2.0])])
    rows = [Row([1, 9, 2], torch.ones(1, 4), answers), plain_row]
    batch = collate(rows, audio_token_id=9, pad_token_id=0)
    assert [row.length for row in rows] == [5, 2]
    assert batch.input_ids.tolist() == [[1, 9, 2, 5, 6], [3, 4, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 0, 0]]
    assert batch.segments.tolist() == [[PROMPT] * 3 + [0, 0], [PROMPT, 0] + [PADDING] * 3]
    assert batch.audio_mask.nonzero().tolist() == [[0, 1]]
    assert batch.targets.tolist() == [5, 6, 7, 8, 4, 4]
    positions = (torch.arange(2)[:, None] * 5 + batch.queries).flatten()[batch.sources]
    assert positions.tolist() == [2, 3, 4, 2, 5, 6]
    assert batch.answer_of.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.advantages.tolist() == [1.5, 1.5, 1.5, 0.0, 0.0, 0.0]
    assert batch.weights.tolist() == [1.0, 1.0, 1.0, 0.25, 1.0, 1.0]
    assert batch.supervised.tolist() == [False, False, False, True, False, False]
    torch.testing.assert_close(batch.sampled_logprobs, torch.tensor([-0.1, -0.2, -0.3, 0.0, -1.0, -2.0]))


def test_a_micro_batch_moves_whole():
    batch = collate([Row([1], torch.zeros(0, 4), [AnswerTokens([2])])], 9, 0).to(torch.device("meta"))
    assert {value.device.type for value in vars(batch).values() if isinstance(value, Tensor)} == {"meta"}


@pytest.mark.parametrize(("prompt", "frames"), [([1, 9, 9], 1), ([1, 9], 2), ([1], 1), ([9], 0)])
def test_placeholders_and_frames_must_agree(prompt, frames):
    row = Row(prompt, torch.zeros(frames, 4), [AnswerTokens([2])])
    with pytest.raises(ValueError, match=f"{prompt.count(9)} audio placeholders for {frames} frames"):
        collate([row], 9, 0)


def test_frames_missing_in_one_row_are_not_taken_from_the_next():
    answers = [AnswerTokens([2])]
    rows = [Row([9, 9], torch.zeros(1, 4), answers), Row([9], torch.zeros(2, 4), answers)]
    with pytest.raises(ValueError, match="2 audio placeholders for 1 frames"):
        collate(rows, 9, 0)


def test_log_probabilities_must_match_the_tokens():
    with pytest.raises(ValueError):
        collate([Row([1], torch.zeros(0, 4), [AnswerTokens([2, 3], [-1.0])])], 9, 0)


@pytest.mark.parametrize("seed", range(20))
def test_micro_batches_hold_every_row_once_within_the_budget(seed):
    generator = random.Random(seed)
    lengths = [generator.randint(1, 100) for _ in range(generator.randint(0, 60))]
    budget = max(lengths, default=1) + generator.randint(0, 300)
    plan = plan_micro_batches(lengths, budget)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    sizes = [len(batch) * max(lengths[i] for i in batch) for batch in plan]
    assert all(size <= budget for size in sizes)
    # First fit leaves no two micro-batches that would go into one.
    for a in range(len(plan)):
        for b in range(a + 1, len(plan)):
            assert len(plan[a] + plan[b]) * max(lengths[i] for i in plan[a] + plan[b]) > budget


def test_a_group_that_does_not_fit_becomes_rows_with_the_same_prompt(setup):
    row = setup.row("What?", clip(setup, 1.0, 14), answers_of(setup, LONG, SHORT, TIMES, LONG))
    longest = len(row.prompt_ids) + len(row.answers[0].token_ids) - 1
    for budget in (row.length, row.length - 1, longest + 4, longest):
        parts = split_rows([row], budget)
        assert [id(a) for part in parts for a in part.answers] == [id(a) for a in row.answers]
        assert all(part.prompt_ids == row.prompt_ids and part.length <= budget for part in parts)
        assert (len(parts) == 1) == (budget == row.length)
        plan = plan_micro_batches([part.length for part in parts], budget)
        found = torch.cat([setup.score([parts[i]])[0] for i in sorted(i for batch in plan for i in batch)])
        torch.testing.assert_close(found, setup.score([row])[0], rtol=0, atol=1e-5)


def test_an_answer_that_fits_no_micro_batch_is_refused_by_its_clip():
    answers = [AnswerTokens([1] * 4), AnswerTokens([1] * 6)]
    row = Row([1] * 8, torch.zeros(0, 4), answers, sample="yard.wav@sed")
    with pytest.raises(ValueError, match=r"sample yard.wav@sed: its prompt of 8 tokens and one answer of 6 do not"):
        split_rows([row], 12)


def test_an_empty_row_weighs_nothing_and_still_runs(setup):
    row = setup.row("What?", clip(setup, 1.0, 13), answers_of(setup, LONG, SHORT, advantage=2.0))
    blank = empty_like(row)
    batch = setup.batch([blank])
    assert batch.weights.abs().sum() == 0 and batch.advantages.abs().sum() == 0
    assert torch.isfinite(setup.policy(batch, 1.0)[0]).all()
