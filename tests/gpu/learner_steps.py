"""The program behind `test_learner.py`: the same two updates under several settings, on this process's device.

    python tests/gpu/learner_steps.py CHECKPOINT CASE=JSON ...

A case is `{"dtype", "rank", "batch", "zero"}`. Prints one JSON line a case: log-probabilities before and after, the
norms of both gradients, the loss; or the error.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timepro.tasks import find_task
from trainer.learner import distributed
from trainer.learner.learner import Learner
from trainer.learner.rows import AnswerTokens, MicroBatch, Row
from trainer.settings.batch import BatchConfig
from trainer.settings.lora import LoraConfig
from trainer.settings.optimiser import OptimiserConfig
from trainer.settings.zero import ZeroConfig

RATE = 1e-3


def main() -> None:
    folder, cases = Path(sys.argv[1]), [argument.partition("=") for argument in sys.argv[2:]]
    store = distributed.join_alone()
    for name, _, settings in cases:
        try:
            found = steps(folder, json.loads(settings))
        except Exception as error:  # noqa: BLE001 - a case that fails must not take the others with it
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps({"case": name} | found), flush=True)
        gc.collect()
    del store


def steps(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    learner = Learner(
        folder, OptimiserConfig(), ZeroConfig(dtype=case["dtype"], persistence_threshold=0, **case.get("zero", {})),
        BatchConfig(micro_batch_tokens=2048, **case.get("batch", {})), LoraConfig(rank=case.get("rank", 0)),
    )  # fmt: skip
    rows = rows_of(learner)
    count = float(sum(len(answer.token_ids) for row in rows for answer in row.answers))
    learner.start()

    def loss(logprobs: Tensor, entropies: Tensor, micro: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        value = -(logprobs * micro.advantages).sum() / count
        return value, {"loss": value}

    before = logprobs_of(learner, rows)
    updates = [learner.update(rows, loss, 1.0, RATE) for _ in range(2)]
    return {
        "before": before,
        "after": logprobs_of(learner, rows),
        "loss": [update.numbers["loss"] for update in updates],
        "grad_norm": [update.grad_norm for update in updates],
    }


def logprobs_of(learner: Learner, rows: list[Row]) -> list[float]:
    return [value for row in learner.with_own(rows, 1.0) for answer in row.answers for value in answer.own_logprobs]


def rows_of(learner: Learner) -> list[Row]:
    """Six clips of 2 to 10 s with four answers each."""
    rng, processor, rows = np.random.default_rng(0), learner.processor, []
    parameter = next(learner.encoder.parameters())
    for _ in range(6):
        waveform = rng.normal(0, 0.1, int(rng.uniform(2, 10) * 16000)).astype(np.float32)
        features = processor.features_of(waveform).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            (frames,) = processor.family.encode(learner.encoder, [features])
        prompt = processor.expanded_prompt(find_task("sed").question(), len(frames))
        answers = []
        for _ in range(4):
            onsets = np.sort(rng.uniform(0, 1.5, rng.integers(1, 5)))
            ids = processor.answer_ids("".join(f"<{int(o / 0.04) * 0.04:.2f}>siren<1.96>" for o in onsets))
            answers.append(AnswerTokens(ids, [-1.0] * len(ids), advantage=float(rng.normal())))
        rows.append(Row(prompt, frames, answers))
    return rows


if __name__ == "__main__":
    main()
    distributed.leave(0)
