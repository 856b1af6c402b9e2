"""What a sync of 7 billion parameters would take on GPUs, from a formula: no machine of this kind was measured.

    python experiments/benchmarks/sync_estimate.py [--calls 0.05]

With B bytes of weights, R learner ranks on as many GPUs, c of the numbers changed, each term in seconds:

- dense: `max(gather, wire, load) + 2 buckets + calls`; stages overlap but for the first and the last bucket. Rank 0's
  gather brings B (1 - 1/R) through the slowest link between ranks, the broadcast B through the slowest link to workers,
  a load reads and writes B in GPU memory and pays two kernel launches a tensor.
- delta: `find + gather + wire + apply + calls`. Find reads 2 B / R for the comparison and 3 B / R for the sum, and
  writes an eighth of B / R; apply moves a sector of 32 bytes thrice for every changed number, and 3 B for the sum. Each
  launches some kernels a tensor, and ten for every 16 MiB that are summed.
- adapters: `2 B_a / link + load + calls`, rank 16 on every linear layer, float32.

`calls` is measured: the HTTP calls around a sync. Bandwidths are what is usually reached, not data sheets' peaks.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Bandwidths in bytes a second."""

    ranks: int
    link: float  # between learner ranks, and to the workers, on the slowest way
    memory: float = 2.5e12  # a GPU's own, H100: 3.35e12 by its data sheet
    launch_s: float = 6e-6  # of one kernel


# Half of a node's GPUs learn and the others generate; NVLink within a node, one 400 Gb/s card a GPU between nodes.
MACHINES = {"8 GPUs": Machine(ranks=4, link=1.5e11), "64 GPUs": Machine(ranks=32, link=4.0e10)}
GOALS_S = {"dense": 1.0, "delta": 0.3, "adapters": 0.1}  # on one node
PARAMETERS, TENSORS = 7.6e9, 339  # Qwen2.5-7B's decoder and head
ADAPTER_NUMBERS = 4.0e7  # rank 16 on every linear layer of it
BUCKET = 256 * 2**20
CHANGED = 0.02  # of bfloat16 weights, in a step of RL


def estimate(machine: Machine, calls_s: float) -> dict[str, float]:
    """Seconds by mode."""
    whole, own = 2 * PARAMETERS, 2 * PARAMETERS / machine.ranks
    gather, wire = whole * (1 - 1 / machine.ranks) / machine.link, whole / machine.link
    load = 2 * whole / machine.memory + 2 * TENSORS * machine.launch_s
    dense = max(gather, wire, load) + 2 * BUCKET / machine.link + calls_s

    delta_bytes = 6 * CHANGED * PARAMETERS
    kernels = 10 * machine.launch_s / (16 * 2**20)  # of a sum, a byte
    find = (5 + 1 / 8) * own / machine.memory + own * kernels + 20 * TENSORS * machine.launch_s
    scattered = 3 * 32 * CHANGED * PARAMETERS / machine.memory + 10 * TENSORS * machine.launch_s
    summed = 3 * whole / machine.memory + whole * kernels
    delta = find + 2 * delta_bytes / machine.link + scattered + summed + calls_s

    adapters = 2 * 4 * ADAPTER_NUMBERS / machine.link + 20 * TENSORS * machine.launch_s + calls_s
    return {"dense": dense, "delta": delta, "adapters": adapters}


def estimates(calls_s: float) -> dict[str, dict[str, float]]:
    """By machine and mode, with the goals on one node beside."""
    found = {name: estimate(machine, calls_s) for name, machine in MACHINES.items()}
    return {name: {mode: round(s, 3) for mode, s in of.items()} for name, of in (found | {"goals": GOALS_S}).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=float, default=0.05, help="seconds of the calls around a sync, as measured")
    print(json.dumps(estimates(parser.parse_args().calls)))
