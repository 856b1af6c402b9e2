"""ms-swift's GRPO on what `peers.py` prepared; runs in ms-swift's own environment, started by `peers.py`.

Its transformers backend: its vLLM backend asks for a GPU. Tuned: no gradient checkpointing, all answers of a step in as
few micro-batches as `batch` says, attention by PyTorch, no reference model, nothing saved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peers_steps import StepClock
from peers_task import ANSWERS, LEARNING_RATE, PROMPTS, TOKENS, in_order
from swift import rlhf_main  # type: ignore[import-not-found]
from swift.callbacks import callbacks_map  # type: ignore[import-not-found]
from swift.rewards import ORM, orms  # type: ignore[import-not-found]


class InOrder(ORM):
    """The reward."""

    def __call__(self, completions: list[str], wanted: list[str], **_: Any) -> list[float]:
        """One number a completion."""
        return [in_order(answer, right) for answer, right in zip(completions, wanted, strict=True)]


def main() -> None:
    """Train as the job on the command line says."""
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    clock = StepClock(Path(job["result"]), job["seconds"])
    callbacks_map["clock"] = lambda args, trainer: clock
    orms["in_order"] = InOrder
    settings = {
        "rlhf_type": "grpo", "model": folder / "checkpoint", "model_type": "qwen2_5_omni", "template": "qwen2_5_omni",
        "system": "", "dataset": folder / "swift.jsonl", "load_from_cache_file": "false", "tuner_type": "full",
        "torch_dtype": "float32", "attn_impl": "sdpa", "reward_funcs": "in_order", "num_generations": ANSWERS,
        "max_completion_length": TOKENS, "temperature": 1.0, "beta": 0.0, "loss_type": "dapo", "epsilon_high": 0.28,
        "overlong_filter": "true", "per_device_train_batch_size": job["batch"],
        "gradient_accumulation_steps": PROMPTS * ANSWERS // job["batch"], "gradient_checkpointing": "false",
        "learning_rate": LEARNING_RATE, "adam_beta2": 0.98, "weight_decay": 0.0, "lr_scheduler_type": "constant",
        "warmup_ratio": 0, "max_steps": job["steps"], "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no",
        "split_dataset_ratio": 0, "report_to": "none", "dataloader_num_workers": 0, "dataset_num_proc": 1,
        "callbacks": "clock", "output_dir": job["output"], "seed": job["seed"], "data_seed": job["seed"],
    }  # fmt: skip
    rlhf_main([text for name, value in settings.items() for text in (f"--{name}", str(value))])


if __name__ == "__main__":
    main()
