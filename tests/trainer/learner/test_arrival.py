"""How much of training's change the workers have."""

from __future__ import annotations

import pytest
import torch

from trainer.learner.arrival import Arrival, require_arrival


def share_of(step: float, learner: torch.dtype, worker: torch.dtype, adapters: bool = False) -> float | None:
    generator = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(300, 200, generator=generator)).bfloat16().to(learner)
    arrival = Arrival(adapters)
    arrival.look(0, weight)
    if step:
        arrival.look(0, (weight.float() + step * torch.randn(300, 200, generator=generator).sign()).to(learner))
    return arrival.share(worker)


def test_a_small_change_of_float32_weights_is_lost_in_bfloat16_workers():
    found = share_of(1e-6, torch.float32, torch.bfloat16)
    assert found is not None and found < 0.1
    assert share_of(1e-2, torch.float32, torch.bfloat16) == pytest.approx(1.0, abs=0.02)
    assert share_of(1e-6, torch.float32, torch.float32) == 1.0


def test_what_a_bfloat16_learner_computes_with_arrives_whole():
    assert share_of(1e-3, torch.bfloat16, torch.bfloat16) == 1.0


def test_adapters_arrive_in_bfloat16_workers():
    assert share_of(1e-6, torch.float32, torch.bfloat16, adapters=True) == pytest.approx(1.0, abs=0.05)


def test_a_sample_does_not_keep_the_bucket_it_was_taken_from():
    arrival, bucket = Arrival(adapters=False), torch.zeros(1_000_000)
    arrival.look(0, bucket)
    sample = arrival._now[0]
    assert sample.untyped_storage().nbytes() == 4 * sample.numel() < bucket.untyped_storage().nbytes()


def test_without_a_change_there_is_no_share():
    assert share_of(0.0, torch.float32, torch.bfloat16) is None


def test_below_the_bound_the_run_is_refused_with_the_keys_that_decide_it():
    require_arrival(None, 0.5, torch.float32, torch.bfloat16)
    require_arrival(0.6, 0.5, torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match=r"only 3\.0% .*sync\.min_arrived=0\.5.*float32 \(zero\.dtype\).*bfloat16 \("):
        require_arrival(0.03, 0.5, torch.float32, torch.bfloat16)
