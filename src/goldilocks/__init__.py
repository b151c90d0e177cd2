"""Goldilocks: networks trained just right, from configurations composed of small named options."""

from typing import Any

__version__ = "0.1.0"


def load(run: Any, log_dir: Any = "logs", strict: bool = False) -> Any:
    """The network of a finished run, a folder or `last`, ready to predict; see `predict.load`."""
    from goldilocks.inference import predict  # torch, which not everything here needs

    return predict.load(run, log_dir, strict)
