"""Checkpoints: read safely, and put into a network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from goldilocks.config.strangers import leaves
from goldilocks.errors import Refused


def evaluated_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network that is evaluated, from the state of a training module:
    the mean, where there is one.
    """
    averaged = "average.updates" in state and state["average.updates"] > 0
    prefix = "average.network." if averaged else "network."
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


# --- checkpoints ----------------------------------------------------------------------------------


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads a checkpoint without running any code from it.

    Raises:
        Refused: if it is missing, truncated or not a checkpoint of ours.
    """
    if not path.is_file() and (folds := sorted(path.parents[1].glob("fold_*"))):
        raise Refused(
            f"{path.parents[1]}: is a cross-validation; write the folder of one of its networks:"
            f" {folds[0]}"
        )
    if not path.is_file():
        raise Refused(f"{path}: there is no such checkpoint; a run with callbacks=none keeps none")
    try:
        with ZipFile(path) as parts:
            assert parts.testzip() is None  # the checksums, at which torch.load does not look
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the library raises many kinds
        raise Refused(
            f"{path}: cannot be read as a checkpoint, it is truncated or damaged"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "spec"} <= checkpoint.keys():
        raise Refused(f"{path}: is not a checkpoint of goldilocks")
    refuse_ways_up(checkpoint, path)
    return checkpoint


def refuse_ways_up(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuses paths with `..` in what callbacks have saved:
    the library's removes such files as outdated ones of its own.
    """
    for key, value in leaves(checkpoint.get("callbacks")):
        for text in (key, value):
            if isinstance(text, str) and ".." in re.split(r"[\\/]", text):
                raise Refused(f"{path}: leads out of the folder, to {text}")


def load_training(path: Path) -> dict[str, Any]:
    """A checkpoint that training can go on from.

    Raises:
        Refused: if it is missing, damaged or holds weights only.
    """
    checkpoint = load_checkpoint(path)
    if not {"loops", "optimizer_states", "diverged"} <= checkpoint.keys():
        raise Refused(f"{path}: holds weights only; training cannot go on from it")
    return checkpoint


def load_weights(module: torch.nn.Module, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Loads a checkpoint's weights into a module.

    Raises:
        Refused: if it holds the weights of another network.
    """
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise Refused(
            f"{path}: holds the weights of another network ({first_mismatch(module, checkpoint)})"
        ) from error


def first_mismatch(module: torch.nn.Module, checkpoint: Mapping[str, Any]) -> str:
    """The first tensor that differs in name or shape."""
    ours, theirs = module.state_dict(), checkpoint["state_dict"]
    for name in [*ours, *theirs]:
        here = tuple(ours[name].shape) if name in ours else "none"
        there = tuple(theirs[name].shape) if name in theirs else "none"
        if here != there:
            return f"{name}: {there} in the checkpoint, {here} in the configuration"
    return "values differ in kind"
