"""Kept results, `experiments/results/`: a small file a finished trial, so that a study grows over days and machines."""
