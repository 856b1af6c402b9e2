"""The weight stream on one card: NCCL between two processes on it is refused, gloo takes its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rollout import stream
from trainer.learner.sender import stream_device
from trainer.settings.sync import SyncConfig

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 40.0

# Rank 1, and by `PEER` rank 0 too: join a group on one card, then broadcast a tensor that lies on it.
PEER = """
import sys, torch
from rollout import stream
port, rank, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.cuda.set_device(0)
store = stream.join_store("127.0.0.1", port, 40.0)
where = torch.device("cuda", 0) if kind == "nccl" else torch.device("cpu")
try:
    group = stream.join_group(store, "test", rank, 2, 40.0, where)
    weights = torch.arange(1000.0, device="cuda") if rank == 0 else torch.zeros(1000, device="cuda")
    buffer = weights.to(where)
    stream.finish(stream.start_broadcast(group, buffer, 40.0), 40.0)
    weights.copy_(buffer)
    torch.cuda.synchronize()
    print("got", float(weights.sum()), flush=True)
except Exception as error:
    print("refused", type(error).__name__, error, flush=True)
"""


def both(kind: str) -> list[str]:
    """What two processes on one card say in the end."""
    store = stream.host_store("127.0.0.1", 0, DEADLINE_S)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PEER, str(store.port), str(rank), kind],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = []
    for process in started:
        try:
            output, _ = process.communicate(timeout=2 * DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            output += "\nhung"
        print(output)
        said.append(output.strip())
    return said


def test_nccl_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(ValueError, match=r"sync.transport=nccl needs GPUs of their own: set learner.gpus and rollout"):
        stream_device(SyncConfig(transport="nccl"), own_gpus=False)
    assert stream_device(SyncConfig(), own_gpus=False) == torch.device("cpu")
    assert stream_device(SyncConfig(), own_gpus=True).type == "cuda"


def test_why_it_is_refused(note) -> None:
    """NCCL itself does not let two ranks share a card. Should that change, the refusal above may go."""
    said = both("nccl")
    note("NCCL between two processes on one card", [text[-300:] for text in said])
    assert not any("hung" in text for text in said)
    assert all("refused DistBackendError" in text for text in said), said


def test_gloo_carries_weights_between_two_processes_on_the_card() -> None:
    said = both("gloo")
    assert [text.splitlines()[-1] for text in said] == ["got 499500.0"] * 2
