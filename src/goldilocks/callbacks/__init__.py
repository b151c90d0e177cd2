"""Callbacks of ours only; options name the library's directly."""

from goldilocks.callbacks.charts import Charts
from goldilocks.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from goldilocks.callbacks.early_stopping import EarlyStopping
from goldilocks.callbacks.evaluation import EvaluationFigures
from goldilocks.callbacks.graph import NetworkGraph
from goldilocks.callbacks.health import NetworkHealth
from goldilocks.callbacks.histograms import Histograms
from goldilocks.callbacks.learning_rate import LearningRateMonitor
from goldilocks.callbacks.progress import ProgressBar
from goldilocks.callbacks.recorder import Recorder, recorder_of

__all__ = [
    "BestCheckpoint",
    "Charts",
    "EarlyStopping",
    "EvaluationFigures",
    "Histograms",
    "LastCheckpoint",
    "LearningRateMonitor",
    "NetworkGraph",
    "NetworkHealth",
    "ProgressBar",
    "Recorder",
    "recorder_of",
]
