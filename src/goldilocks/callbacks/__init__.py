"""Callbacks of ours only; options name the library's directly."""

from goldilocks.callbacks.baselines import Baselines
from goldilocks.callbacks.board import Charts, NetworkGraph
from goldilocks.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from goldilocks.callbacks.early_stopping import EarlyStopping
from goldilocks.callbacks.evaluation import EvaluationFigures
from goldilocks.callbacks.health import Histograms, NetworkHealth
from goldilocks.callbacks.importance import FeatureImportance
from goldilocks.callbacks.learning_rate import LearningRateMonitor
from goldilocks.callbacks.predictions import KeptPredictions
from goldilocks.callbacks.progress import ProgressBar
from goldilocks.callbacks.recorder import Recorder, recorder_of

__all__ = [
    "Baselines",
    "BestCheckpoint",
    "Charts",
    "EarlyStopping",
    "EvaluationFigures",
    "FeatureImportance",
    "Histograms",
    "KeptPredictions",
    "LastCheckpoint",
    "LearningRateMonitor",
    "NetworkGraph",
    "NetworkHealth",
    "ProgressBar",
    "Recorder",
    "recorder_of",
]
