"""The commands that may need a rollout worker."""
