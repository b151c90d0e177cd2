"""Callbacks of ours only; options name the library's directly."""

from goldilocks.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from goldilocks.callbacks.early_stopping import EarlyStopping
from goldilocks.callbacks.evaluation import EvaluationFigures
from goldilocks.callbacks.learning_rate import LearningRateMonitor
from goldilocks.callbacks.progress import ProgressBar
from goldilocks.callbacks.recorder import Recorder, recorder_of

__all__ = [
    "BestCheckpoint",
    "EarlyStopping",
    "EvaluationFigures",
    "LastCheckpoint",
    "LearningRateMonitor",
    "ProgressBar",
    "Recorder",
    "recorder_of",
]
