"""`timepro train`: from command-line options to a run, and from errors to exit codes."""

from __future__ import annotations

import argparse
import os
import sys

from omegaconf import OmegaConf

from timepro.config import load_experiment


def train(options: argparse.Namespace) -> int:
    """Run an experiment.

    Returns:
        0 done, 1 a process failed, 2 wrong use, 128 + signal where a signal ended it.
    """
    # Said to every process started from here on: nothing is fetched, and nobody's progress bars but ours.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from trainer.check import check, describe
    from trainer.experiment import ExperimentConfig
    from trainer.launch import Interrupted
    from trainer.run import run_experiment
    from trainer.sender import SyncError

    try:
        config = load_experiment(options.experiment, options.overrides, ExperimentConfig, options.experiments)
        if options.dry_run:
            check(config)
            print(OmegaConf.to_yaml(OmegaConf.structured(config)))
            print(describe(config))
            return 0
        run_experiment(config, options.resume)
        return 0
    except (ValueError, FileNotFoundError) as error:
        return _fail(str(error), 2)
    except Interrupted as stop:
        return _fail(f"stopped by {stop}; the same command with --resume continues this run", 128 + stop.number)
    except (RuntimeError, SyncError, OSError) as error:
        return _fail(str(error), 1)


def _fail(message: str, code: int) -> int:
    print(f"timepro: {message}", file=sys.stderr, flush=True)
    return code
