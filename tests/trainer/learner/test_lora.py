"""Adapters: one start a seed, PEFT's arithmetic where nothing is rounded, files that PEFT and training go on from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reference_models import load_reference
from timepro.adapter_folder import adapter_base
from timepro.features import Processor
from trainer.learner.adapter_files import export_adapter, read_adapter
from trainer.learner.export import export_checkpoint
from trainer.learner.lora import AdaptedLinear, add_lora, trained_share
from trainer.learner.merging import Narrowing
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


def policy_of(folder, processor, lora=LORA, seed=0, dtype=torch.float32):
    return load_policy(folder, processor.family, processor.layout, dtype, lora, seed)


def moved(policy, size=0.2):
    """The policy with adapters that do something: B starts as zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for streamed in policy.streamed():
            parameter = streamed.parameters[0]
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return policy


def adapters_of(policy):
    return {streamed.name: streamed.merge().clone() for streamed in policy.streamed()}


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_adapters_change_nothing(folder, processor, dtype):
    policy, encoder = policy_of(folder, processor, dtype=dtype)
    batch = batch_of(processor, encoder.float())
    fresh = logprobs(policy, batch)
    with policy.as_started():
        assert torch.equal(logprobs(policy, batch), fresh)
    plain, _ = load_policy(folder, processor.family, processor.layout, dtype)
    bound = 1e-6 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(fresh, logprobs(plain, batch), rtol=0, atol=bound)


def test_only_the_adapters_are_trained(folder, processor):
    policy, encoder = policy_of(folder, processor)
    policy(batch_of(processor, encoder), 1.0)[0].sum().backward()
    moving = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert moving == {name for name, p in policy.named_parameters() if p.requires_grad}
    assert moving and all(".lora_" in name for name in moving)
    trained, whole = trained_share(list(policy.parameters()))
    assert 0 < trained < 0.1 * whole
    assert [p for group in policy.parameter_groups(0.1) for p in group["params"]]


def test_the_stream_holds_a_and_b_in_float32_by_their_names_in_the_decoder(folder, processor):
    policy, _ = policy_of(folder, processor, dtype=torch.bfloat16)
    stream = {tensor.name: tensor for tensor in moved(policy).streamed()}
    assert len(stream) == 2 * 7 * len(policy.text_model.layers)
    a = policy.text_model.layers[0].self_attn.v_proj.lora_A.weight
    assert torch.equal(stream["layers.0.self_attn.v_proj.lora_A.weight"].merge(), a)
    assert {tensor.dtype for tensor in stream.values()} == {torch.float32}
    assert policy.adapter_scale == 2.0


def test_a_checkpoint_holds_every_adapted_weight_merged_under_its_published_name(folder, processor):
    policy, _ = policy_of(folder, processor)
    published = {tensor.name: tensor for tensor in moved(policy).published(Narrowing())}
    assert len(published) == 7 * len(policy.text_model.layers)
    name = processor.family.checkpoint_name(f"{processor.family.decoder_prefix}layers.0.self_attn.v_proj.weight")
    w, a, b = (p.detach().double().numpy() for p in published[name].parameters)
    np.testing.assert_allclose(published[name].merge().numpy(), w + (8.0 / 4) * b @ a, atol=1e-6)


def test_the_merged_export_is_pefts_merge_and_gives_the_policys_log_probabilities(folder, processor, tmp_path):
    from peft import PeftModel

    policy, encoder = policy_of(folder, processor)
    batch = batch_of(processor, encoder)
    before = logprobs(policy, batch)
    expected = logprobs(moved(policy), batch)
    assert (expected - before).abs().max() > 1e-2
    merged = {t.name: t.merge() for t in policy.published(Narrowing())}
    export_checkpoint(folder, tmp_path / "merged", dict(merged))
    reloaded, _ = load_policy(tmp_path / "merged", processor.family, processor.layout, torch.float32)
    torch.testing.assert_close(logprobs(reloaded, batch), expected, rtol=0, atol=1e-5)

    export_adapter(tmp_path / "adapter", LORA, adapters_of(policy), processor.family.decoder_prefix, folder)
    reference = load_reference(processor.family.name, folder)
    model = PeftModel.from_pretrained(reference, str(tmp_path / "adapter")).merge_and_unload()
    found = {processor.family.checkpoint_name(name): p for name, p in model.named_parameters()}
    for name, tensor in merged.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def test_gradients_are_those_of_the_merged_weight():
    torch.manual_seed(0)
    linear = torch.nn.Linear(12, 10)
    layer = AdaptedLinear(linear, LORA)
    torch.nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(2, 3, 12, requires_grad=True)
    twin, a, b = (t.detach().clone().requires_grad_() for t in (x, layer.lora_A.weight, layer.lora_B.weight))
    weight = linear.weight.detach() + 2.0 * b @ a
    expected = torch.nn.functional.linear(twin, weight, linear.bias.detach())
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    towards = torch.randn(2, 3, 10)
    (layer(x) * towards).sum().backward()
    (expected * towards).sum().backward()
    for own, other in ((x, twin), (layer.lora_A.weight, a), (layer.lora_B.weight, b)):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-5)
    assert layer.weight.grad is None


def test_the_adapters_start_follows_the_seed_and_no_other_random_state(folder, processor):
    starts = {}
    for name, seed, state in (("one", 3, 1), ("same", 3, 2), ("other", 4, 1)):
        torch.manual_seed(state)
        starts[name] = adapters_of(policy_of(folder, processor, seed=seed)[0])
    assert all(torch.equal(tensor, starts["same"][name]) for name, tensor in starts["one"].items())
    drawn = [name for name in starts["one"] if ".lora_A." in name]
    assert drawn and not any(torch.equal(starts["one"][name], starts["other"][name]) for name in drawn)


def test_training_goes_on_with_an_exported_adapter_and_remembers_it_as_its_start(folder, processor, tmp_path):
    policy, encoder = policy_of(folder, processor)
    batch = batch_of(processor, encoder)
    fine_tuned = logprobs(moved(policy), batch)
    prefix = processor.family.decoder_prefix
    export_adapter(tmp_path / "adapter", LORA, adapters_of(policy), prefix, folder)
    assert adapter_base(tmp_path, 4, 8.0) == folder.resolve()

    other, _ = policy_of(folder, processor, seed=7)
    other.start_from(read_adapter(tmp_path / "adapter", prefix), "there")
    assert torch.equal(logprobs(other, batch), fine_tuned)
    other.keep_start()
    assert not torch.equal(logprobs(moved(other, 0.3), batch), fine_tuned)
    with other.as_started():
        assert torch.equal(logprobs(other, batch), fine_tuned)
    trained = {name for name, p in other.named_parameters() if p.requires_grad}
    assert trained and not any(".start_" in name for name in trained)


def test_an_adapter_that_does_not_fit_is_refused(folder, processor, tmp_path):
    policy, _ = policy_of(folder, processor)
    tensors = adapters_of(policy)
    prefix = processor.family.decoder_prefix
    with pytest.raises(ValueError, match=r"lora\.continue=true goes on with the adapter .* holds none"):
        adapter_base(tmp_path, 4, 8.0)
    export_adapter(tmp_path / "adapter", LORA, tensors, prefix, folder)
    with pytest.raises(ValueError, match=r"another kind of adapter: lora.rank is 8, its own 4; lora.alpha is 9"):
        adapter_base(tmp_path, 8, 9.0)
    with pytest.raises(ValueError, match="is an adapter of another model"):
        read_adapter(tmp_path / "adapter", "another.")
    settings = tmp_path / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": "/nowhere"}))
    with pytest.raises(ValueError, match=r"belongs to the checkpoint /nowhere, which is not there"):
        adapter_base(tmp_path, 4, 8.0)
    fewer = {name: t for name, t in tensors.items() if "q_proj" not in name}
    with pytest.raises(ValueError, match=r"there does not fit lora.targets: layers.0.self_attn.q_proj.lora_A.weight"):
        policy.start_from(fewer, "there")
    odd = {name: t[:, :2] for name, t in tensors.items()}
    with pytest.raises(ValueError, match=r"there: layers.0.*is \(4, 2\), the model wants"):
        policy.start_from(odd, "there")


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
        add_lora(policy.text_model, config, 0)


@pytest.mark.parametrize("lora", [LoraConfig(), LORA], ids=["whole weights", "adapters"])
def test_no_part_of_the_encoder_is_sent_whose_frames_the_workers_keep(folder, processor, lora):
    policy, encoder = policy_of(folder, processor, lora)
    sent = {id(parameter) for tensor in policy.streamed() for parameter in tensor.parameters}
    assert sent and not sent & {id(parameter) for parameter in encoder.parameters()}
    assert not any("audio" in tensor.name or "projector" in tensor.name for tensor in policy.streamed())
