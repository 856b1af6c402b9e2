"""A learner rank: `python -m trainer.learner.rank JOB.json`, started by the launcher, one process a rank."""

from __future__ import annotations

import os
import random
import sys
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from timepro.config import load_resolved
from timepro.system.processes import end_with_parent
from trainer.learner import distributed
from trainer.learner.grpo_job import run_grpo
from trainer.learner.recovery import WorkersLost
from trainer.learner.sft_job import run_sft
from trainer.learner.write_guard import disk_trouble
from trainer.messages import JobSpec
from trainer.settings.experiment import ExperimentConfig


def main() -> NoReturn:
    """Run the job; the exit code is 128 + signal where a signal ended it."""
    end_with_parent()
    # torch announces a renaming once a call that DeepSpeed makes; nothing to do for anybody who reads it here.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    job = JobSpec.load(Path(sys.argv[1]))
    config = load_resolved(Path(job.config), ExperimentConfig)
    stop = distributed.StopRequest()
    torch.set_num_threads(config.learner.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    distributed.join(config.zero.collective_timeout_s)
    try:
        signal = {"sft": run_sft, "grpo": run_grpo}[job.kind](job, config, stop)
    except (ValueError, FileNotFoundError) as error:  # wrong input: the message says what to do, a traceback would not
        _give_up(str(error))
    except OSError as error:
        if not disk_trouble(error):
            raise
        _give_up(
            f"{error}. The disk of {job.work} is full; free some space, then the same command with --resume continues "
            "from the last checkpoint"
        )
    except WorkersLost as error:  # on every rank
        distributed.say(f"timepro: {error}; the same command with --resume continues this run")
        distributed.leave(128 + stop.signal if stop.signal else 1)
    distributed.leave(128 + signal if signal else 0)


def _give_up(why: str) -> NoReturn:
    """End this rank at once: the others wait in a collective for it, and the launcher ends them."""
    print(f"learner rank {distributed.rank()}: {why}", file=sys.stderr, flush=True)
    os._exit(2)


if __name__ == "__main__":
    main()
