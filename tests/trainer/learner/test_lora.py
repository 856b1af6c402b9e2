"""Adapters: what is trained, what is sent, and what is exported, against PEFT's own merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference_models import load_reference
from timepro.features import Processor
from trainer.learner.export import export_checkpoint
from trainer.learner.lora import add_lora, export_adapter, trained_share
from trainer.learner.policy import load_policy
from trainer.learner.rows import AnswerTokens, Row, collate
from trainer.settings.lora import LoraConfig

LORA = LoraConfig(rank=4, alpha=8.0)


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen2_audio"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def processor(folder):
    return Processor(folder)


def policy_of(folder, processor, lora=LORA):
    return load_policy(folder, processor.family, processor.layout, torch.float32, lora)


def moved(policy, seed=0):
    """The policy with adapters that do something: B starts as zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in policy.adapters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def batch_of(processor, encoder):
    waveform = np.random.default_rng(0).normal(0.0, 0.1, 24000).astype(np.float32)
    with torch.no_grad():
        (frames,) = processor.family.encode(encoder, [processor.features_of(waveform)])
    prompt = processor.expanded_prompt("What?", len(frames))
    row = Row(prompt, frames, [AnswerTokens(processor.answer_ids(text)) for text in ("siren", "<0.40><1.20>engine")])
    return collate([row], processor.audio_token_id, processor.tokenizer.pad_token_id)


def logprobs(policy, batch):
    policy.eval()
    with torch.no_grad():
        return policy(batch, 1.0)[0]


def test_fresh_adapters_change_nothing(folder, processor):
    policy, encoder = policy_of(folder, processor)
    plain, _ = load_policy(folder, processor.family, processor.layout, torch.float32)
    batch = batch_of(processor, encoder)
    torch.testing.assert_close(logprobs(policy, batch), logprobs(plain, batch), rtol=0, atol=1e-6)


def test_only_the_adapters_are_trained(folder, processor):
    policy, encoder = policy_of(folder, processor)
    policy(batch_of(processor, encoder), 1.0)[0].sum().backward()
    moving = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert moving == {name for name, p in policy.named_parameters() if p.requires_grad}
    assert moving and all(".lora_" in name for name in moving)
    trained, whole = trained_share(list(policy.parameters()))
    assert 0 < trained < 0.1 * whole
    assert [p for group in policy.parameter_groups(0.1) for p in group["params"]]


def test_the_stream_holds_every_adapted_weight_merged_under_its_published_name(folder, processor):
    policy, _ = policy_of(folder, processor)
    moved(policy)
    stream = {tensor.name: tensor for tensor in policy.streamed()}
    assert len(stream) == 7 * len(policy.text_model.layers)
    layer = policy.text_model.layers[0].self_attn.v_proj
    name = processor.family.checkpoint_name(f"{processor.family.decoder_prefix}layers.0.self_attn.v_proj.weight")
    w, a, b = (p.detach().double().numpy() for p in stream[name].parameters)
    np.testing.assert_allclose(stream[name].merge().numpy(), w + (8.0 / 4) * b @ a, atol=1e-6)
    assert stream[name].merge().shape == layer.base_layer.weight.shape


def test_the_merged_export_is_pefts_merge_and_gives_the_policys_log_probabilities(folder, processor, tmp_path):
    from peft import PeftModel

    policy, encoder = policy_of(folder, processor)
    batch = batch_of(processor, encoder)
    before = logprobs(policy, batch)
    expected = logprobs(moved(policy), batch)
    assert (expected - before).abs().max() > 1e-2
    export_checkpoint(folder, tmp_path / "merged", {t.name: t.merge() for t in policy.streamed()})
    reloaded, _ = load_policy(tmp_path / "merged", processor.family, processor.layout, torch.float32)
    torch.testing.assert_close(logprobs(reloaded, batch), expected, rtol=0, atol=1e-5)

    adapters = {name: p.detach() for name, p in policy.adapters()}
    export_adapter(tmp_path / "adapter", LORA, adapters, processor.family.decoder_prefix, folder)
    reference = load_reference(processor.family.name, folder)
    model = PeftModel.from_pretrained(reference, str(tmp_path / "adapter")).merge_and_unload()
    found = {processor.family.checkpoint_name(name): p for name, p in model.named_parameters()}
    for tensor in policy.streamed():
        torch.testing.assert_close(found[tensor.name], tensor.merge(), rtol=0, atol=1e-6)


def test_every_rank_starts_with_the_same_adapters(folder, processor):
    torch.manual_seed(1)
    one, _ = policy_of(folder, processor)
    torch.manual_seed(2)
    other, _ = policy_of(folder, processor)
    for (name, a), (_, b) in zip(one.adapters(), other.adapters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(rank=4, targets=["q_proj", "w_proj"]), r"lora.targets: \['w_proj'\]; .*'q_proj'"),
        (LoraConfig(rank=4, targets=[]), "lora.targets: empty"),
        (LoraConfig(rank=-1), "rank must be at least 1"),
        (LoraConfig(rank=4, dropout=1.0), r"dropout in \[0, 1\)"),
    ],
)
def test_bad_settings_are_refused(folder, processor, config, message):
    policy, _ = load_policy(folder, processor.family, processor.layout, torch.float32)
    with pytest.raises(ValueError, match=message):
        add_lora(policy.text_model, config)
