"""The weight stream between two processes: buckets, checksums, addresses and deadlines."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rollout import stream
from rollout.checksum import StreamChecksum

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def start_peer(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a program in another process, with the repository's packages and gloo on loopback."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def result(peer: subprocess.Popen[str]) -> str:
    """The peer's last line. A peer that hangs is ended, and fails the test."""
    try:
        output, _ = peer.communicate(timeout=40)
    finally:
        peer.kill()
    assert peer.returncode == 0, output
    return output.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


@pytest.mark.parametrize("seed", range(30))
def test_buckets_hold_every_tensor_once_in_order_aligned_and_apart(seed):
    generator = random.Random(seed)
    sizes = [generator.choice([0, 1, 2, 63, 64, 65, 4096, generator.randint(0, 9000)]) for _ in range(50)]
    limit = 64 * generator.randint(1, 100)
    buckets = stream.plan_buckets(sizes, limit)
    assert [slot.tensor for bucket in buckets for slot in bucket.slots] == list(range(50))
    for bucket in buckets:
        assert bucket.size <= limit or len(bucket.slots) == 1
        end = 0
        for slot in bucket.slots:
            assert slot.size == sizes[slot.tensor]
            assert slot.offset >= end and slot.offset % 64 == 0
            end = slot.offset + slot.size
        assert end <= bucket.size < end + 64
    for bucket, following in zip(buckets, buckets[1:], strict=False):
        start = -(-bucket.size // 64) * 64
        assert start + following.slots[0].size > limit  # a bucket is only closed when the next does not fit


def test_the_buckets_limit_holds_where_it_is_no_multiple_of_the_alignment():
    assert all(bucket.size <= 100 for bucket in stream.plan_buckets([60, 30, 10], 100))


def test_no_tensors_need_no_bucket_and_a_limit_must_be_positive():
    assert stream.plan_buckets([], 64) == []
    with pytest.raises(ValueError, match=r"sync\.bucket_mib must be positive, got 0 bytes"):
        stream.plan_buckets([1], 0)


def test_tensors_of_any_type_and_shape_survive_packing():
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(3, 5, generator=generator),
        torch.randn(7, generator=generator).to(torch.bfloat16),
        torch.tensor(2.5, dtype=torch.float64),
        torch.empty(0, 4),
        torch.tensor([1, -2, 3], dtype=torch.int8),
    ]
    sizes = [stream.tensor_bytes(t.dtype, t.shape) for t in tensors]
    assert sizes == [60, 14, 8, 0, 3]
    for bucket in stream.plan_buckets(sizes, 128):
        buffer = torch.zeros(bucket.size, dtype=torch.uint8)
        slots = [(slot, tensors[slot.tensor]) for slot in bucket.slots]
        for slot, tensor in slots:
            stream.view_slot(buffer, slot, tensor.dtype, tensor.shape).copy_(tensor)
        for slot, tensor in slots:
            assert torch.equal(stream.view_slot(buffer, slot, tensor.dtype, tensor.shape), tensor)


RECEIVE = """
import os, sys, torch
from rollout import stream
from rollout.checksum import StreamChecksum
port, size = int(sys.argv[1]), int(sys.argv[2])
group = stream.join_group(stream.join_store("127.0.0.1", port, 20), "weights/a", 1, 2, 20, torch.device("cpu"))
buffers = [torch.zeros(size, dtype=torch.uint8) for _ in range(2)]
for buffer in buffers:
    stream.finish(stream.start_broadcast(group, buffer, 20), 20)
with StreamChecksum() as checksum:
    for buffer in buffers:
        checksum.add(buffer)
    print(checksum.value(), flush=True)
os._exit(0)  # an ordinary exit tears gloo down beside its own threads, now and then with SIGABRT
"""


def test_buckets_reach_another_process_bit_by_bit():
    store = stream.host_store("127.0.0.1", 0, 20)
    size = 1_000_003
    peer = start_peer(RECEIVE, store.port, size)
    group = stream.join_group(store, "weights/a", 0, 2, 20, CPU)
    with StreamChecksum() as checksum:
        for seed in (1, 2):
            bucket = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
            checksum.add(bucket)
            stream.finish(stream.start_broadcast(group, bucket, 20), 20)
        assert result(peer) == str(checksum.value())
    group.abort()


def listeners(port: int) -> list[str]:
    """Local addresses on which any process listens at a port, as the kernel writes them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            address, number = fields[1].split(":")
            if fields[3] == "0A" and int(number, 16) == port:
                found.append(address)
    return found


def test_the_store_listens_on_loopback_alone():
    store = stream.host_store("127.0.0.1", 0, 5)
    assert listeners(store.port) == ["0100007F"]
    joined = stream.join_store("127.0.0.1", store.port, 5)
    joined.set("key", "value")
    assert store.get("key") == b"value"


def test_a_port_in_use_is_a_users_mistake():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*in use.*or 0 for a free one"):
            stream.host_store("127.0.0.1", port, 5)


def test_an_address_of_another_machine_is_a_users_mistake():
    with pytest.raises(ValueError, match=r"cannot listen on 192\.0\.2\.1:0"):
        stream.host_store("192.0.2.1", 0, 5)


# Each of these waits in vain with a limit of 2 s; they run in processes that a test can end if they hang instead.
WAIT_ALONE = """
import torch
from rollout import stream
store = stream.host_store("127.0.0.1", 0, 2)
try:
    stream.join_group(store, "weights/a", 0, 2, 2, torch.device("cpu"))
except RuntimeError as error:
    print("raised", type(error).__name__)
"""

WAIT_FOR_STORE = """
import socket, torch
from rollout import stream
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
try:
    stream.join_store("127.0.0.1", port, 2)
except RuntimeError as error:
    print("raised", type(error).__name__)
"""

WAIT_FOR_BUCKET = """
import os, sys, torch
from rollout import stream
group = stream.join_group(stream.join_store("127.0.0.1", int(sys.argv[1]), 20), "w", 1, 2, 20, torch.device("cpu"))
print("joined", flush=True)
try:
    stream.finish(stream.start_broadcast(group, torch.zeros(1000, dtype=torch.uint8), 2), 2)
except RuntimeError as error:
    print("raised", type(error).__name__, flush=True)
    os._exit(0)  # gloo ends an interpreter's ordinary exit with SIGABRT while a broadcast has no peer
"""


@pytest.mark.parametrize("program", [WAIT_ALONE, WAIT_FOR_STORE], ids=["peer", "store"])
def test_a_missing_peer_or_store_raises_instead_of_hanging(program):
    assert result(start_peer(program)).startswith("raised")


def test_a_bucket_that_never_comes_raises_instead_of_hanging():
    store = stream.host_store("127.0.0.1", 0, 20)
    peer = start_peer(WAIT_FOR_BUCKET, store.port)
    group = stream.join_group(store, "w", 0, 2, 20, CPU)
    assert result(peer).startswith("raised")
    group.abort()


LEAVE = """
import os, sys, torch
from rollout import stream
stream.join_group(stream.join_store("127.0.0.1", int(sys.argv[1]), 20), "first", 1, 2, 20, torch.device("cpu"))
print("joined", flush=True)
os._exit(0)
"""


def test_a_peer_that_is_gone_raises_and_a_new_prefix_makes_a_new_group():
    store = stream.host_store("127.0.0.1", 0, 20)
    gone = start_peer(LEAVE, store.port)
    group = stream.join_group(store, "first", 0, 2, 20, CPU)
    assert result(gone) == "joined"
    with pytest.raises(RuntimeError):
        stream.finish(stream.start_broadcast(group, torch.zeros(50_000_000, dtype=torch.uint8), 5), 5)
    group.abort()
    peer = start_peer(RECEIVE, store.port, 100)
    group = stream.join_group(store, "weights/a", 0, 2, 20, CPU)
    with StreamChecksum() as checksum:
        for _ in range(2):
            ones = torch.ones(100, dtype=torch.uint8)
            checksum.add(ones)
            stream.finish(stream.start_broadcast(group, ones, 20), 20)
        assert result(peer) == str(checksum.value())
    group.abort()


def test_a_peer_that_never_comes_is_named_at_the_deadline():
    store = stream.host_store("127.0.0.1", 0, 20)
    began = time.monotonic()
    words = r"ranks \[1, 2\] of the transfer group did not come within 0\.5 s"
    with pytest.raises(stream.PeersMissing, match=words) as error:
        stream.join_group(store, "w", 0, 3, 0.5, CPU)
    assert error.value.ranks == [1, 2]
    assert time.monotonic() - began < 5


def test_what_is_checked_while_peers_are_missing_ends_the_wait():
    def check():
        raise ConnectionError("the worker refused")

    store = stream.host_store("127.0.0.1", 0, 20)
    with pytest.raises(ConnectionError, match="the worker refused"):
        stream.join_group(store, "w", 0, 2, 60, CPU, check)


def test_nccls_settings_hold_for_this_group_alone(monkeypatch):
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "3")
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT", raising=False)
    with pytest.raises(RuntimeError, match="no cards"), stream._errors_raise_in_wait():
        assert os.environ["TORCH_NCCL_BLOCKING_WAIT"] == "1"
        assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"
        raise RuntimeError("no cards")
    assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"
    assert "TORCH_NCCL_BLOCKING_WAIT" not in os.environ
