"""A worker is told what the weight stream will bring, and makes room for it."""

from __future__ import annotations

import json

from rollout.settings import AdapterShape, WorkerConfig
from rollout.worker import worker_command


def told(checkpoint, **what):
    command = worker_command(WorkerConfig(), checkpoint, 1, **what)
    return json.loads(command[command.index("--additional-config") + 1]) if "--additional-config" in command else {}


def test_the_command_says_what_the_weight_stream_will_bring(tiny_checkpoint):
    adapters = {"timepro_adapters": {"rank": 8, "targets": ["q_proj"]}}
    assert told(tiny_checkpoint, adapters=AdapterShape(8, ("q_proj",))) == adapters
    assert told(tiny_checkpoint, deltas=True) == {"timepro_keep_weights": True}
    assert told(tiny_checkpoint) == {}
