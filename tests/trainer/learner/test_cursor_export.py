"""The order of samples, shares of ranks, and exporting a checkpoint."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from timepro.features import Processor
from timepro.names import CARD, MODEL_CARD
from trainer.learner.export import export_checkpoint
from trainer.learner.learner import weighted_token_count
from trainer.learner.order import Cursor, Mixture, share
from trainer.learner.rows import AnswerTokens, Row


@pytest.mark.parametrize("count", [1, 3, 10, 25])
def test_every_epoch_visits_each_sample_once(count):
    cursor = Cursor(10, seed=3)
    taken = []
    while len(taken) < 100:
        taken += cursor.take(count)
    epochs = [taken[i : i + 10] for i in range(0, 100, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_the_order_depends_on_the_seed_and_not_on_how_it_is_cut():
    whole = Cursor(7, seed=1).take(40)
    cut = Cursor(7, seed=1)
    assert [i for n in (1, 2, 3, 4, 30) for i in cut.take(n)] == whole
    assert Cursor(7, seed=2).take(40) != whole


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 8, 20])
def test_a_restored_cursor_continues_identically(taken):
    cursor = Cursor(7, seed=5)
    cursor.take(taken)
    state = json.loads(json.dumps(cursor.state()))
    fresh = Cursor(7, seed=5)
    fresh.restore(state)
    assert fresh.take(30) == cursor.take(30)
    assert fresh.state() == cursor.state()


@pytest.mark.parametrize("other", [Cursor(8, seed=5), Cursor(7, seed=6)])
def test_a_state_of_other_data_or_another_seed_is_refused(other):
    with pytest.raises(ValueError, match="made with 7 samples and seed 5"):
        other.restore(Cursor(7, seed=5).state())


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no training samples"):
        Cursor(0, seed=1)


def test_a_mixture_of_one_set_is_its_cursor():
    assert Mixture([9], [2.0], seed=4).take(40) == Cursor(9, seed=4).take(40)


def test_a_mixture_keeps_every_sets_share_at_every_moment():
    sizes, weights = [50, 7, 20], [0.5, 0.3, 0.2]
    mixture = Mixture(sizes, weights, seed=0)
    counts = np.zeros(3)
    for n in range(1, 301):
        (index,) = mixture.take(1)
        counts[0 if index < 50 else 1 if index < 57 else 2] += 1
        assert np.abs(counts - n * np.array(weights)).max() < 1.0
    assert counts.tolist() == [150, 90, 60]
    assert mixture.epoch == 3  # 150 of 50, 90 of 7, 60 of 20: the slowest went round three times


@pytest.mark.parametrize("taken", [0, 1, 30, 77])
def test_a_restored_mixture_continues_identically(taken):
    mixture = Mixture([5, 8], [1, 3], seed=2)
    mixture.take(taken)
    fresh = Mixture([5, 8], [1, 3], seed=2)
    fresh.restore(json.loads(json.dumps(mixture.state())))
    assert fresh.take(50) == mixture.take(50)


def test_a_mixture_refuses_the_state_of_other_tasks():
    with pytest.raises(ValueError, match="made with 1 tasks, this run has 2"):
        Mixture([5, 8], [1, 1], seed=2).restore(Mixture([5], [1], seed=2).state())
    with pytest.raises(ValueError, match="each needs one above 0"):
        Mixture([5, 8], [1, 0], seed=2)


@pytest.mark.parametrize("n", [0, 1, 5, 8, 13])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_the_shares_of_any_number_of_ranks_make_up_the_global_batch(n, world_size):
    items = list(range(100, 100 + n))
    shares = [share(items, rank, world_size) for rank in range(world_size)]
    assert sorted(i for part in shares for i in part) == items
    assert all(part == sorted(part) for part in shares), "a rank's samples keep the batch's order"
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_meets_most_of_its_samples_again_in_the_next_epoch():
    met = {0: set(), 1: set()}
    again = total = 0
    cursor = Cursor(640, seed=0)
    for step in range(40):
        batch = cursor.take(32)
        for rank in (0, 1):
            mine = set(share(batch, rank, 2))
            if step >= 20:
                again, total = again + len(mine & met[rank]), total + len(mine)
            else:
                met[rank] |= mine
    assert total == 640 and again / total > 0.8  # half of them where the rank is chosen blindly


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text('{"a": 1}')
    save_file({"x": torch.zeros(2, 3), "y": torch.ones(4)}, folder / "model-1.safetensors", metadata={"format": "pt"})
    save_file({"z": torch.ones(2, dtype=torch.bfloat16)}, folder / "model-2.safetensors", metadata={"format": "pt"})
    return folder


def test_export_replaces_the_changed_tensors_and_copies_the_rest(source, tmp_path):
    target = tmp_path / "runs" / "target"
    export_checkpoint(source, target, {"x": torch.arange(6.0).view(3, 2).t(), "z": torch.tensor([0.5, 2.0])})
    first, second = load_file(target / "model-1.safetensors"), load_file(target / "model-2.safetensors")
    assert torch.equal(first["x"], torch.tensor([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]))
    assert torch.equal(first["y"], torch.ones(4))
    assert second["z"].dtype == torch.bfloat16
    assert second["z"].tolist() == [0.5, 2.0]
    assert (target / "config.json").read_text() == '{"a": 1}'
    assert sorted(p.name for p in target.parent.iterdir()) == ["target"]
    assert torch.equal(load_file(source / "model-1.safetensors")["x"], torch.zeros(2, 3))


def test_an_export_has_the_prompts_of_its_source_and_not_its_card(tiny_checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    for name in (CARD, MODEL_CARD):
        (source / name).write_text("of other weights")
    export_checkpoint(source, tmp_path / "target", {})
    prompts = [Processor(folder).prompt_ids("When?") for folder in (source, tmp_path / "target")]
    assert prompts[0] == prompts[1]
    left_out = {path.name for path in source.iterdir()} - {path.name for path in (tmp_path / "target").iterdir()}
    assert left_out == {CARD, MODEL_CARD}
    assert (tmp_path / "target" / "config.json").read_text() == (source / "config.json").read_text()


def test_export_replaces_an_older_export_whole(source, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "left_over").write_text("old")
    export_checkpoint(source, target, {})
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "model-1.safetensors", "model-2.safetensors"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.ones(2, 3), "w": torch.ones(1)}, "holds no tensors named w"),
        ({"y": torch.ones(5)}, r"model-1\.safetensors: y is \(4,\), the trained tensor \(5,\)"),
    ],
)
def test_a_refused_export_leaves_the_older_one_as_it_was(source, tmp_path, changed, message):
    target = tmp_path / "target"
    export_checkpoint(source, target, {"x": torch.full((2, 3), 7.0)})
    with pytest.raises(ValueError, match=message):
        export_checkpoint(source, target, changed)
    assert torch.equal(load_file(target / "model-1.safetensors")["x"], torch.full((2, 3), 7.0))
    fresh = tmp_path / "fresh"
    with pytest.raises(ValueError, match=message):
        export_checkpoint(source, fresh, changed)
    assert not fresh.exists()


def test_an_exported_tiny_checkpoint_loads_with_its_new_weights(tiny_checkpoint, tmp_path):
    from timepro.families import family_of

    name = "model.layers.0.mlp.up_proj.weight"
    family = family_of(tiny_checkpoint)
    old = family.load(tiny_checkpoint, torch.float32).state_dict()
    export_checkpoint(tiny_checkpoint, tmp_path / "new", {family.checkpoint_name(name): old[name] + 1.0})
    new = family.load(tmp_path / "new", torch.float32).state_dict()
    assert torch.equal(new[name], old[name] + 1.0)
    assert all(torch.equal(new[key], old[key]) for key in old if key != name)


def test_weighted_tokens_are_counted_by_kind():
    sampled = [AnswerTokens([1, 2, 3]), AnswerTokens([1], weight=0.5), AnswerTokens([1, 2], weight=0.0)]
    row = Row([9], torch.zeros(0, 4), [*sampled, AnswerTokens([4, 5], supervised=True)])
    assert weighted_token_count([row, row], supervised=False) == 7.0
    assert weighted_token_count([row, row], supervised=True) == 4.0
