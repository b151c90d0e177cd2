"""Loggers of ours. Those whose package is an extra are imported by whoever names them."""

from goldilocks.loggers.base import RunLogger, takers
from goldilocks.loggers.table import CSVLogger
from goldilocks.loggers.tensorboard import TensorBoardLogger

__all__ = ["CSVLogger", "RunLogger", "TensorBoardLogger", "takers"]
