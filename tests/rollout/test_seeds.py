"""Workers whose requests bring no seeds: each draws by a seed of its own."""

from __future__ import annotations

from rollout.settings import WorkerConfig
from rollout.worker import worker_command


def test_workers_that_draw_without_seeds_draw_differently(tiny_checkpoint):
    def command(config, name, port=4321):
        return worker_command(config, tiny_checkpoint, port, name=name)

    assert "--seed" not in command(WorkerConfig(), "1")
    seeds = []
    for name in ("0", "1", "1-0"):
        words = command(WorkerConfig(seeded=False), name)
        seeds.append(words[words.index("--seed") + 1])
        assert command(WorkerConfig(seeded=False), name, port=1)[-2:] == command(WorkerConfig(seeded=False), name)[-2:]
    assert len(set(seeds)) == 3 and all(0 <= int(seed) < 2**31 for seed in seeds)
