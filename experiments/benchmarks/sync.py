"""The weight stream's stages alone, then end to end, beside one broadcast a parameter.

    python experiments/benchmarks/sync.py [--parameters 0.05] [--ranks 1]

In one run, with a real vLLM worker and real ZeRO-3 ranks on this machine:

- `gather`: making ZeRO-3's partitioned parameters whole and packing them into buckets;
- `wire`: the buckets' broadcast to a process that throws them away;
- `load`: the worker's checksum and loading of what it has received (its own count, from the syncs end to end);
- `sync`: all of it, as after every step, to the moment when the worker answers with the new weights.

`of_slowest` is the sync's bandwidth over that of its slowest stage, `over_per_parameter` over that of the same stream
with a bucket for every tensor. `extra_mib` is what the sync adds to the peak memory of rank 0, over the buckets' size
it is `extra_buckets`. Random weights; `--parameters` is in billions and met within some per cent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import messages
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent)]

import torch  # noqa: E402

TARGETS = {"of_slowest": 0.85, "over_per_parameter": 1.3}
REPEATS = 3


def main() -> int:
    """Measure, print a JSON line; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=0.05, help="billions")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--bucket-mib", type=float, default=32.0)
    parser.add_argument("--role", choices=("rank", "sink"), help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "sink":
        return sink(options.job)
    if options.role == "rank":
        return rank(options.job)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    figures["of_slowest"] = figures["sync_mib_s"] / min(figures[f"{s}_mib_s"] for s in ("gather", "wire", "load"))
    figures["over_per_parameter"] = figures["per_parameter_s"] / figures["sync_s"]
    holds = all(figures[key] >= target for key, target in TARGETS.items())
    print(json.dumps({"benchmark": "sync", "figures": figures, "targets": TARGETS, "holds": holds}))
    return 0 if holds else 1


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start a worker and the ranks; rank 0's figures."""
    from rollout import stream
    from rollout.auth import TOKEN_VARIABLE
    from rollout.settings import WorkerConfig
    from trainer.launcher.workers import WorkerSet

    checkpoint = build(folder, options.parameters * 1e9)
    store = stream.host_store("127.0.0.1", 0, 600.0)
    workers = WorkerSet(WorkerConfig(threads=1, max_model_len=512), checkpoint, [folder], folder / "logs")
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        workers.wait()
        job = {"checkpoint": str(checkpoint), "urls": workers.urls, "out": str(folder / "figures.json"),
               "bucket_mib": options.bucket_mib}  # fmt: skip
        for number in range(options.ranks):
            environment = os.environ | {
                messages.RANK: str(number), messages.LOCAL_RANK: str(number),
                messages.WORLD_SIZE: str(options.ranks), messages.STORE_HOST: "127.0.0.1",
                messages.STORE_PORT: str(store.port), TOKEN_VARIABLE: workers.token, "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
            }  # fmt: skip
            command = [sys.executable, __file__, "--role", "rank", "--job", json.dumps(job)]
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        if codes := [code for process in ranks if (code := process.wait(3600))]:
            raise RuntimeError(f"a rank ended with exit code {codes[0]}; see above")
    finally:
        for process in ranks:
            process.kill()
        workers.end()
    return {"ranks": options.ranks} | json.loads((folder / "figures.json").read_text())


def build(folder: Path, parameters: float) -> Path:
    """A checkpoint of the embedded model's kind with about as many parameters."""
    from timepro.data.sounds import SOUNDS
    from timepro.tasks.samples import tokenizer_texts
    from timepro.tiny.build import build_tiny_checkpoint
    from timepro.tiny.config import TinyModelConfig

    layers = 12 if parameters < 2e8 else 16
    # A layer has 2 w^2 for queries and output, w^2 for half as many keys and values, 12 w^2 in its feed-forward part.
    width = max(128, round((parameters / layers / 15) ** 0.5 / 128) * 128)
    config = TinyModelConfig(hidden_size=width, layers=layers, heads=width // 64, key_value_heads=width // 128)
    config.feed_forward = 4 * width
    build_tiny_checkpoint(folder / "checkpoint", config, SOUNDS, tokenizer_texts())
    return folder / "checkpoint"


def rank(job: dict[str, Any]) -> int:
    """One learner rank: every stage and the whole; rank 0 writes the figures."""
    from rollout.auth import TOKEN_VARIABLE
    from trainer.learner import distributed
    from trainer.learner.learner import Learner
    from trainer.learner.sender import WeightSender
    from trainer.settings.batch import BatchConfig
    from trainer.settings.lora import LoraConfig
    from trainer.settings.sync import SyncConfig

    torch.set_num_threads(1)
    distributed.join(1800.0)
    learner = Learner(Path(job["checkpoint"]), OptimiserConfig(), ZeroConfig(), BatchConfig(), LoraConfig())
    learner.start()
    first, token, version = distributed.rank() == 0, os.environ[TOKEN_VARIABLE], 0

    def sender_of(bucket_mib: float) -> WeightSender:
        config = SyncConfig(bucket_mib=bucket_mib, timeout_s=600.0)
        made = WeightSender(learner.engine, job["urls"], token, config, own_gpus=False)
        made.connect()
        return made

    def syncs(sender: WeightSender, times: int) -> tuple[list[float], list[dict[str, Any]]]:
        nonlocal version
        seconds, reports = [], []
        for _ in range(times):
            version += 1
            seconds.append(sender.deliver(version).seconds)
            if first:
                answer = sender.control.post(job["urls"][0], "collective_rpc", {"method": "timepro_last_update"})
                reports.append(answer["results"][0])
        return seconds, reports

    sender = sender_of(job["bucket_mib"])
    before = peak_mib()
    syncs(sender, 1)  # the first also builds what is kept
    whole, reports = syncs(sender, REPEATS)
    extra = peak_mib() - before
    gather = [timed(lambda: [sender._gather(b, wanted=first) for b in sender._buckets]) for _ in range(REPEATS)]
    wire = wire_seconds(sender._buckets) if first else 0.0
    distributed.barrier()
    sizes, n_bytes = [b.size for b in sender._buckets], sender._bytes
    sender.close()
    single = sender_of(1e-6)
    syncs(single, 1)
    per_parameter, _ = syncs(single, REPEATS)
    single.close()
    if first:
        mib = n_bytes / 2**20
        seconds = {
            "gather": statistics.median(gather),
            "wire": wire,
            "load": statistics.median(report["load_seconds"] for report in reports),
            "sync": statistics.median(whole),
        }
        figures = {"parameters": sum(p.ds_numel for p in learner.engine.module.parameters()), "mib": mib}
        figures |= {"buckets": len(sizes)} | {f"{stage}_s": value for stage, value in seconds.items()}
        figures |= {f"{stage}_mib_s": mib / value for stage, value in seconds.items()}
        figures |= {"per_parameter_s": statistics.median(per_parameter), "extra_mib": extra}
        figures["extra_buckets"] = extra / (max(sizes) / 2**20)
        Path(job["out"]).write_text(json.dumps(figures))
    distributed.barrier()
    return 0


def wire_seconds(buckets: list[Any]) -> float:
    """Seconds to broadcast buckets of these sizes to another process, the next one begun before the last has ended."""
    from rollout import stream

    store, taken = stream.host_store("127.0.0.1", 0, 600.0), []
    job = {"port": store.port, "sizes": [b.size for b in buckets]}
    other = subprocess.Popen([sys.executable, __file__, "--role", "sink", "--job", json.dumps(job)])
    group = stream.join_group(store, "wire", 0, 2, 600.0, torch.device("cpu"))
    buffers = [torch.ones(b.size, dtype=torch.uint8) for b in buckets]
    for _ in range(REPEATS + 1):
        taken.append(timed(lambda: broadcast(group, buffers)))
    other.wait(60)
    return statistics.median(taken[1:])


def broadcast(group: Any, buffers: list[Any]) -> None:
    from rollout import stream

    pending = None
    for buffer in buffers:
        begun = stream.start_broadcast(group, buffer, 600.0)
        if pending is not None:
            stream.finish(pending, 600.0)
        pending = begun
    stream.finish(pending, 600.0)


def sink(job: dict[str, Any]) -> int:
    """The other end of `wire_seconds`."""
    from rollout import stream

    store = stream.join_store("127.0.0.1", job["port"], 600.0)
    group = stream.join_group(store, "wire", 1, 2, 600.0, torch.device("cpu"))
    for _ in range(REPEATS + 1):
        broadcast(group, [torch.empty(size, dtype=torch.uint8) for size in job["sizes"]])
    return 0


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_mib() -> float:
    """This process's peak memory."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
