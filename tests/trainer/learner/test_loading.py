"""A checkpoint loaded weight by weight: every rank has what it had when each loaded all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ranks import run_ranks
from timepro.checkpoints import StoredTensor
from timepro.families import family_of
from timepro.features import Processor
from trainer.learner.loading import WeightSource, is_hollow, load_hollow
from trainer.learner.policy import load_policy
from trainer.settings.lora import LoraConfig


@pytest.fixture(scope="module", params=["tiny_checkpoint", "tiny_qwen2_audio"])
def whole(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def in_shards(source: Path, target: Path, dtype: torch.dtype = torch.bfloat16, without: str = "") -> Path:
    """The same checkpoint in three files with an index, as published ones are."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names, weight_map = sorted(weights.keys() - {without}), {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file({name: weights[name].to(dtype) for name in names[number::3]}, target / file)
        weight_map |= dict.fromkeys(names[number::3], file)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_encoder_is_whole_and_the_decoder_has_no_memory(whole: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = in_shards(whole, tmp_path / "shards")
    processor = Processor(folder)
    arguments = (folder, processor.family, processor.layout, dtype, LoraConfig(rank=2), 3)
    expected, expected_encoder = load_policy(*arguments)
    policy, encoder = load_policy(*arguments, hollow=True)

    def same(found: nn.Module, wanted: nn.Module, kind: str) -> None:
        one, other = dict(getattr(found, f"named_{kind}")()), dict(getattr(wanted, f"named_{kind}")())
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    same(encoder, expected_encoder, "parameters")
    same(encoder, expected_encoder, "buffers")
    same(policy, expected, "buffers")
    assert list(policy.buffers())
    for (name, found), wanted in zip(policy.named_parameters(), expected.parameters(), strict=True):
        assert (found.shape, found.dtype, found.requires_grad) == (wanted.shape, wanted.dtype, wanted.requires_grad)
        assert ("lora_" in name) == (not is_hollow(found)), name
        if "lora_" in name:
            assert torch.equal(found, wanted), "adapters start as they did"
        else:
            assert found.isnan().all(), "what is used before it is read shows"
    assert list(policy.published_names.values()) == list(expected.published_names.values())


def test_a_weight_that_is_missing_is_named(whole: Path, tmp_path: Path) -> None:
    family = family_of(whole)
    for name in (family.embedding_name, family.checkpoint_name(_first_of_encoder(whole))):
        folder = in_shards(whole, tmp_path / name, without=name)
        with pytest.raises(ValueError, match=f"holds no weight {name}, which its config.json asks for"):
            load_hollow(folder, family, torch.float32)


def _first_of_encoder(folder: Path) -> str:
    family = family_of(folder)
    model = family.load(folder, torch.float32)
    own = {id(parameter) for parameter in family.audio_encoder(model).parameters()}
    return next(name for name, parameter in model.named_parameters() if id(parameter) in own)


def test_a_weight_is_read_as_the_library_reads_it(whole: Path) -> None:
    expected = load_file(whole / "model.safetensors")
    source = WeightSource(whole)
    assert source.tensors.keys() == expected.keys()
    assert all(torch.equal(source.read(name, torch.float32), tensor) for name, tensor in expected.items())


def test_a_file_that_is_cut_off_is_named(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(whole / "model.safetensors", path)
    source = WeightSource(tmp_path)
    last: StoredTensor = list(source.tensors.values())[-1]
    with path.open("r+b") as file:
        file.truncate(last.end - 1)
    with pytest.raises(ValueError, match=r"model\.safetensors was cut off while it was read"):
        source.read(last.name, torch.float32)


BOTH_WAYS = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from timepro.checkpoints import StoredTensor
from timepro.features import Processor
from trainer.learner import distributed, zero
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.policy import load_policy
from trainer.learner.rows import AnswerTokens, Row, collate
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

torch.set_num_threads(1)
distributed.join(90.0)
reads, read = [], StoredTensor.read
StoredTensor.read = lambda self: reads.append(self.name) or read(self)

def engine_of(folder, processor, dtype, rank, hollow):
    settings = ZeroConfig(dtype=dtype, persistence_threshold=100)
    policy, encoder = load_policy(folder, processor.family, processor.layout, zero.compute_dtype(settings),
                                  LoraConfig(rank=rank), 5, hollow=hollow)
    torch.manual_seed(distributed.rank())  # nothing may depend on it
    engine = zero.initialise(policy, OptimiserConfig(), settings)
    return engine, {id(p) for p in encoder.parameters()}

def step(engine, processor):
    ids = processor.answer_ids("none")
    rows = [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])]
    micro = collate(rows, processor.audio_token_id, processor.tokenizer.pad_token_id)
    logprobs, _ = engine(micro, 1.0)
    zero.backward(engine, cross_entropy_sum(logprobs, micro.weights), last=True)
    norm, _ = zero.step(engine)
    return logprobs.tolist(), norm

report = []
CASES = ("bf16", "bfloat16", 0), ("bf16", "bfloat16", 2), ("audio", "float32", 0)
for folder, dtype, rank in CASES:
    folder = Path(sys.argv[1]) / folder
    processor = Processor(folder)
    one, _ = engine_of(folder, processor, dtype, rank, hollow=False)
    reads.clear()
    two, encoder = engine_of(folder, processor, dtype, rank, hollow=True)
    n_reads = len(reads)
    pairs = list(zip(one.module.named_parameters(), two.module.named_parameters(), strict=True))
    same = all(
        a == b and torch.equal(p.ds_tensor, q.ds_tensor) and p.ds_persist == q.ds_persist and p.ds_shape == q.ds_shape
        for (a, p), (b, q) in pairs
    )
    first, second = step(one, processor), step(two, processor)
    after = all(torch.equal(p.ds_tensor, q.ds_tensor) for (_, p), (_, q) in pairs)
    hollow = sum(1 for _, (n, p) in pairs if "lora_" not in n)
    report.append([same, first == second, after, n_reads - len(encoder) == (hollow if distributed.is_first() else 0)])
print(json.dumps(report))
"""


def test_every_ranks_part_is_bit_equal_to_that_of_a_whole_load(
    tiny_checkpoint: Path, tiny_qwen2_audio: Path, tmp_path: Path
) -> None:
    """Weights, what stays whole, a step's log-probabilities and norm, the weights after it; and who reads what."""
    in_shards(tiny_checkpoint, tmp_path / "bf16")
    in_shards(tiny_qwen2_audio, tmp_path / "audio", torch.float32)
    for out in run_ranks(BOTH_WAYS, tmp_path):
        assert json.loads(out.splitlines()[-1]) == [[True, True, True, True]] * 3
