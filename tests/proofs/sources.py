"""Data from files and from the network: IDX images, tables of OpenML."""

import contextlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import numpy as np

from goldilocks.data.sources.openml import load_openml
from proofs.drive import prepared, refusal
from proofs.table import Measured, proof


def write_idx(path: Path, values: np.ndarray) -> None:
    """A file as its format is described:
    two zeros, 8 for bytes, the number of dimensions, the sizes, the values.
    """
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes())


@contextlib.contextmanager
def idx_folder(size: int = 28) -> Iterator[tuple[Path, dict[str, np.ndarray]]]:
    """A folder of 120 training and 40 test images drawn at random, and what was drawn."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {}
        for part, count in (("train", 120), ("t10k", 40)):
            drawn[part] = random.integers(0, 256, (count, size, size))
            write_idx(Path(folder) / f"{part}-images-idx3-ubyte", drawn[part])
            write_idx(Path(folder) / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
        yield Path(folder), drawn


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """An empty cache, and a network that does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        silent = mock.patch("sklearn.datasets._openml.urlopen", side_effect=URLError("no network"))
        with (
            silent,
            mock.patch("time.sleep"),
            mock.patch.dict(os.environ, {"SCIKIT_LEARN_DATA": folder}),
        ):
            yield


def images_row(option: str, name: str, claim: str, classes: tuple[str, ...]) -> None:
    observable = (
        "a folder of IDX files written here: input shape, pixels that arrive, test rows; without"
        " network"
    )

    @proof(f"data={option}", "G1", claim, observable, covers=f"data.name={name} data.root")
    def images() -> Measured:
        with idx_folder() as (folder, drawn):
            data = prepared(f"data={option}", f"data.root={folder}", "data.scaling=none").data
        found = {stage: x.numpy()[:, 0] for stage, (x, _) in data.tensors.items()}
        tested = np.array_equal(found["test"], drawn["t10k"])
        rest = np.concatenate([found["train"], found["val"]])
        same = np.array_equal(np.sort(rest.ravel()), np.sort(drawn["train"].ravel()))
        with no_network():
            line = refusal(f"data={option}")
        shape, unreached = (
            "x".join(map(str, data.spec.input_shape)),
            "openml.org could not be reached",
        )
        return (
            f"{shape}, {'all' if same else 'not all'}, {'those of t10k' if tested else 'others'};"
            " not fetched, refused:"
            f" {unreached if unreached in line else line}",
            (same, tested, data.spec.input_shape, "could not be reached" in line)
            == (True, True, (1, 28, 28), True)
            and data.spec.class_names[: len(classes)] == classes,
        )


images_row("mnist", "mnist_784", "one input a pixel; t10k is the test set", ("0", "1", "2"))
images_row(
    "fashion_mnist",
    "Fashion-MNIST",
    "the same, with names of its classes",
    ("t-shirt", "trouser", "pullover"),
)


@proof(
    "data=openml",
    "G1 G2",
    "any table of OpenML; a column of words becomes a column a word",
    "`cpu` from the answers that scikit-learn keeps for its own tests: inputs, targets; other"
    " targets; no network",
    covers="data.name data.target data.version",
)
def openml() -> Measured:
    import pytest
    from sklearn.datasets.tests.test_openml import _monkey_patch_webbased_functions

    found = []
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCIKIT_LEARN_DATA", cache)
        load_openml.cache_clear()
        _monkey_patch_webbased_functions(patch, 561, True)
        for words in ((), ("data.target=MMAX",), ("data.target=[MMIN,MMAX]",)):
            data = prepared("data=openml", "data.name=cpu", "data.version=1", *words).data
            found.append(
                (
                    data.spec.input_shape[0],
                    data.spec.num_outputs,
                    data.spec.task,
                    " and ".join(data.spec.target_names),
                )
            )
    with no_network():
        load_openml.cache_clear()
        line = refusal("data=openml", "data.name=cpu")
    expected = [  # 30 vendors and the numbers that are not predicted
        (36, 1, "regression", "class"),
        (36, 1, "regression", "MMAX"),
        (35, 2, "regression", "MMIN and MMAX"),
    ]
    shown = "; ".join(f"{inputs} inputs, {task} of {names}" for inputs, _, task, names in found)
    return f"{shown}; not fetched, refused: openml.org could not be reached", (
        found == expected and "openml.org could not be reached" in line
    )
