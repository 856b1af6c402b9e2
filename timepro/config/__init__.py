"""Experiments: a YAML file with its bases, `key=value` overrides, read and checked against dataclasses.

Each part of the project declares the settings it reads as a dataclass; whoever runs an experiment puts them together.
A key that no dataclass has is an error that lists near names, and the type of a setting decides how its text is read.
"""

from timepro.config.experiments import Override, experiment_folders, list_experiments, load_experiment
from timepro.config.keys import by_key, find_key, leaves
from timepro.config.marks import Formerly, Limits, Spec, above, at_least, between
from timepro.config.saved import load_resolved, save_resolved, to_yaml
from timepro.config.specs import spec_of

__all__ = [
    "Formerly",
    "Limits",
    "Override",
    "Spec",
    "above",
    "at_least",
    "between",
    "by_key",
    "experiment_folders",
    "find_key",
    "leaves",
    "list_experiments",
    "load_experiment",
    "load_resolved",
    "save_resolved",
    "spec_of",
    "to_yaml",
]
