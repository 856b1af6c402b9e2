"""What an experiment may set: dataclasses alone, without torch, so that a configuration is read in no time.

A key's path is its file: `grpo.objective.mismatch.mode` is in `mismatch.py`, `grpo.optimiser.flat` in `optimiser.py`.
What generates (`rollout.*`) is declared in `rollout/settings.py`, what belongs to the method in `timepro/`.
"""
