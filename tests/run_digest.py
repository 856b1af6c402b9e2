"""What a finished run has computed, as a few short digests: `python tests/run_digest.py runs/NAME`.

Two commits that print the same for the same command compute the same, bit by bit. On a CPU that takes
`grpo.objective.old_policy=learner`: the workers' own log-probabilities depend on how vLLM has batched the requests.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from safetensors.numpy import load_file

LOSSES = ("loss/policy", "kl", "grad_norm", "entropy", "reward")


def digest(parts: Iterable[bytes]) -> str:
    """Sixteen digits of the SHA-256 of all parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def weights(folder: Path) -> str:
    """Of a checkpoint's tensors, less the tower for pictures, which nothing here loads or trains."""
    tensors = {
        name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }
    return digest(name.encode() + tensors[name].tobytes() for name in sorted(tensors) if ".visual." not in name)


def lines(path: Path) -> list[dict]:
    """A JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def rollouts(run: Path) -> str:
    """Of all sampled answers with their rewards and advantages."""
    keys = ("text", "reward", "advantage", "parts", "token_ids", "weight_version")
    groups = [group for path in sorted((run / "rollouts").glob("*.jsonl")) for group in lines(path)]
    kept = [[g["id"], g["question"], [[answer[key] for key in keys] for answer in g["answers"]]] for g in groups]
    return digest([json.dumps(kept, sort_keys=True).encode()])


def main(run: Path) -> None:
    """Print them."""
    answers = {p.stem: [(a["id"], a["answer"]) for a in lines(p)] for p in sorted((run / "eval").glob("*.jsonl"))}
    losses = [[step.get(name) for name in LOSSES] for step in lines(run / "metrics.grpo.jsonl")]
    print("weights ", weights(run / "checkpoint"))
    print("rollouts", rollouts(run))
    print("answers ", digest([json.dumps(answers, sort_keys=True).encode()]))
    print("losses  ", digest([json.dumps(losses).encode()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
