"""Goldilocks: networks trained just right, from configurations composed of small named options."""

from typing import Any

__version__ = "0.1.0"


def load(run: Any, log_dir: Any = "logs", strict: bool = False) -> Any:
    """The network of a finished run, a folder or `last`, ready to predict; see `predict.load`."""
    from goldilocks.inference import predict  # torch, which not everything here needs

    return predict.load(run, log_dir, strict)


def train(overrides: Any = (), **options: Any) -> Any:
    """Trains a network in this process; see `cli.python.train`.

    `train(["model=deep", "data=iris"])` or `train(model="deep", frame=df, target="price")`.
    """
    from goldilocks.cli import python

    return python.train(overrides, **options)
