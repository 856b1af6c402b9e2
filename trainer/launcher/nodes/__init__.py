"""Runs over several nodes: who is who, how node 0 tells the others what to start, and how they watch each other."""

from trainer.launcher.nodes.node import Node
from trainer.settings.nodes import NodesConfig

__all__ = ["Node", "NodesConfig"]
