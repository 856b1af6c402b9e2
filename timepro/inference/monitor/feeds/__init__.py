"""Where sound comes from: addresses, a microphone, standard input, a folder; read in a thread that reconnects."""

from timepro.inference.monitor.feeds.base import Closed, FileDone, Finished, Item, Opened, Skipped, Sound, Source
from timepro.inference.monitor.feeds.reader import Reader
from timepro.inference.monitor.feeds.which import open_source, source_kind

__all__ = [
    "Closed",
    "FileDone",
    "Finished",
    "Item",
    "Opened",
    "Reader",
    "Skipped",
    "Sound",
    "Source",
    "open_source",
    "source_kind",
]
