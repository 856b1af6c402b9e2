"""The learner: SFT, GRPO, batching, weight sending, checkpoints and the launcher."""
