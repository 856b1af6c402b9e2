"""Checkpoints of two real ranks whose writes fail, and which ones stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ranks import ended_ranks, run_ranks
from trainer.learner.checkpoints import Checkpoints
from trainer.settings.checkpoints import CheckpointsConfig

from .stand_in_learner import Writes

RANK = """
import resource, sys
from pathlib import Path
from trainer.learner import distributed, zero
from trainer.learner.checkpoint_files import damage
from trainer.learner.checkpoints import Checkpoints
from trainer.settings.checkpoints import CheckpointsConfig
from trainer.settings.batch import BatchConfig
from trainer.learner.learner import Learner
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

distributed.join(60.0)
learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(), BatchConfig(), LoraConfig())
learner.start()
folder = Path(sys.argv[2])
checkpoints = Checkpoints(folder, CheckpointsConfig())
own = {f"own.{distributed.rank()}": "x" * 20_000_000}
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)

def limit_files(size):  # what is longer fails as it would on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))

assert checkpoints.save(learner, 1, {"n": 1}, own_files=own)
for step, size in ((2, 100_000), (3, 10_000_000)):  # DeepSpeed's own files, and ours beside them
    if distributed.rank() == 1:
        limit_files(size)
    assert not checkpoints.save(learner, step, {"n": step}, own_files=own)
    limit_files(most)
    assert checkpoints.newest() == folder / "step-000001" and not (folder / f"step-{step:06d}").exists()
assert checkpoints.failures == 2
assert checkpoints.save(learner, 4, {"n": 4}, own_files=own)
assert checkpoints.newest() == folder / "step-000004" and not damage(folder / "step-000004")
assert learner.load(folder / "step-000004") == {"n": 4}
strict = Checkpoints(folder, CheckpointsConfig(on_failure="stop"))
if distributed.rank() == 0:
    limit_files(100_000)
strict.save(learner, 5, {"n": 5})
"""


def test_a_write_that_fails_on_one_rank_leaves_the_older_checkpoints(tmp_path: Path, tiny_checkpoint: Path) -> None:
    words = [rank.log for rank in ended_ranks(RANK, tiny_checkpoint, tmp_path / "checkpoints")]
    for rank, text in enumerate(words):
        last = f"SaveFailed: checkpoint {tmp_path / 'checkpoints' / 'step-000005'} was not written (learner rank 0"
        assert last in text, f"rank {rank}: {text}"
    assert words[0].count("Going on without it; older ones are as they were") == 2
    assert words[1].count("learner rank 1 could not write") == 2 and "File too large" in words[1]
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-000001", "step-000004"]


CONTINUES = """
import sys
from pathlib import Path
import torch
from ranks import ended_ranks, run_ranks
from safetensors.torch import save_file
from trainer.learner import distributed, zero
from trainer.settings.batch import BatchConfig
from trainer.learner.learner import Learner
from trainer.settings.lora import LoraConfig
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

checkpoint, folder, what, lora = sys.argv[1:]
distributed.join(60.0)
torch.manual_seed(0)
learner = Learner(
    Path(checkpoint), OptimiserConfig(weight_decay=0.1), ZeroConfig(persistence_threshold=0), BatchConfig(),
    LoraConfig(rank=int(lora)),
)
learner.start()
ids = learner.processor.answer_ids("none")
rows = [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])]

def step():
    share = 1 / (3 * distributed.world_size())
    learner.update(rows, lambda p, _, m: (share * cross_entropy_sum(p, m.weights), {}), 1.0, 1e-2)

if what == "begin":
    for _ in range(3):
        step()
    learner.save(Path(folder) / "step-000003", {})
else:
    learner.load(Path(folder) / "step-000003")
for number in range(2):
    weights = {name: tensor for name, tensor in zero.stream_weights(learner.engine) if tensor is not None}
    if weights:
        save_file(weights, Path(folder) / f"{what}.{number}.safetensors")
    step()
distributed.barrier()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "lora"), [(2, 1, 0), (1, 2, 2)])
def test_another_number_of_ranks_continues_alike(
    tmp_path: Path, tiny_checkpoint: Path, before: int, after: int, lora: int
) -> None:
    for count, what in ((before, "begin"), (after, "go on")):
        run_ranks(CONTINUES, tiny_checkpoint, tmp_path, what, lora, ranks=count)
    for number in range(2):  # as it was saved, and after one more step
        whole, other = (load_file(tmp_path / f"{what}.{number}.safetensors") for what in ("begin", "go on"))
        for name, tensor in whole.items():
            assert torch.allclose(tensor, other[name], rtol=0, atol=2e-6 * number), (number, name)


RETURNS = """
import sys
from pathlib import Path
import torch
from trainer.learner import distributed, zero
from trainer.learner.learner import Learner
from trainer.learner.losses import cross_entropy_sum
from trainer.learner.rows import AnswerTokens, Row
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

distributed.join(60.0)
learner = Learner(Path(sys.argv[1]), OptimiserConfig(), ZeroConfig(), BatchConfig(), LoraConfig())
learner.start()
ids = learner.processor.answer_ids("none")
rows = [Row(ids, torch.zeros(0, 64), [AnswerTokens(ids, supervised=True)])]

def weights():
    streamed = ((name, tensor) for name, tensor in zero.stream_weights(learner.engine) if tensor is not None)
    return {name: tensor.clone() for name, tensor in streamed}

def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())

def step():
    learner.update(rows, lambda p, _, m: (cross_entropy_sum(p, m.weights) / 6, {}), 1.0, 1e-2)
    return weights()

begun = weights()
learner.save(Path(sys.argv[2]), {})
first = step()
step()
learner.load(Path(sys.argv[2]))
assert same(weights(), begun)
assert distributed.rank() or not same(first, begun)
assert same(step(), first)  # the optimiser's state, too
"""


@pytest.mark.slow
def test_a_checkpoint_of_before_the_first_step_gives_the_start_back(tmp_path: Path, tiny_checkpoint: Path) -> None:
    run_ranks(RETURNS, tiny_checkpoint, tmp_path / "step-000000")


def test_the_newest_and_the_best_stay(tmp_path: Path, alone: None) -> None:
    checkpoints = Checkpoints(tmp_path, CheckpointsConfig(keep=2))
    there = []
    for step, value in enumerate([0.1, 0.5, 0.3, 0.5, 0.2, 0.6, 0.1, 0.1], start=1):
        better = checkpoints.is_best(value)
        assert better == (step in (1, 2, 6))  # as good as the best is not better
        assert checkpoints.save(Writes(), step, {})
        if better:
            checkpoints.note_best(step, value)
        there.append([int(path.name[-1]) for path in sorted(tmp_path.glob("step-*"))])
    assert there == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7], [6, 7, 8]]
    assert checkpoints.best() == tmp_path / "step-000006"
    assert Checkpoints(tmp_path / "none", CheckpointsConfig()).best() is None


@pytest.mark.parametrize("key, value", [("keep", 0), ("on_failure", "retry")])
def test_a_bad_setting_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"grpo.checkpoints.{key} is {value!r}"):
        CheckpointsConfig(**{key: value}).check("grpo.checkpoints")
