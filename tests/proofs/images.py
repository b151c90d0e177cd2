"""Networks and augmentation for images."""

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.signal import correlate2d
from torch import nn

from proofs.drive import Batch, prepared, refusal, train, train_batches
from proofs.networks import numbers, zeroed
from proofs.sources import idx_folder
from proofs.table import Measured, proof, within

DIGITS = ("data=digits", "data.batch_size=64")


# --- convolutions ---------------------------------------------------------------------------------


def convolved(images: np.ndarray, kernels: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[B, before, H, W] to [B, after, H, W], by scipy, with zeros around."""
    return np.stack(
        [
            [
                sum(correlate2d(x, k, "same") for x, k in zip(image, kernel, strict=True)) + b
                for kernel, b in zip(kernels, bias, strict=True)
            ]
            for image in images
        ]
    )


def halved(images: np.ndarray) -> np.ndarray:
    """The largest of each 2 x 2 pixels."""
    batch, channels, height, width = images.shape
    return images.reshape(batch, channels, height // 2, 2, width // 2, 2).max((3, 5))


def cnn_error(pool: str) -> tuple[float, list[tuple[int, ...]]]:
    """Outputs of a small network of two stages of two convolutions minus the formula;
    shapes of its weights.
    """
    sizes = (
        "model.channels=[2,3]",
        "model.convs=2",
        "model.dense=5",
        f"model.pool={pool}",
        "model.output_scale=1",
    )
    parts = prepared(*DIGITS, "model=cnn", *sizes, "model.norm=none", "model.activation=tanh")
    network, x = parts.module.network.eval(), parts.data.tensors["train"][0][:6]
    p, h = list(numbers(network).values()), x.double().numpy()
    for stage in range(2):
        for layer in range(2):
            place = 4 * stage + 2 * layer
            h = np.tanh(convolved(h, p[place], p[place + 1]))
        h = halved(h)
    h = h.mean((2, 3)) if pool == "mean" else h.reshape(len(h), -1)
    h = np.tanh(h @ p[8].T + p[9]) @ p[10].T + p[11]
    return float(np.abs(network(x).detach().double().numpy() - h).max()), [
        values.shape for values in p[::2]
    ]


@proof(
    "model=cnn",
    "G30",
    "stages of 3 x 3 convolutions, each of which halves the image, and a head",
    "outputs minus the formula, by scipy's correlation; kernels; parameters for 28 x 28; share"
    " zeroed at the end",
    covers="model.channels model.convs model.dense model.dropout model.output_scale",
)
def cnn() -> Measured:
    error, shapes = cnn_error("all")
    with idx_folder() as (folder, _):
        large = prepared("data=mnist", f"data.root={folder}", "model=cnn").module.network
    count = sum(p.numel() for p in large.parameters())
    drops = zeroed("model=cnn", "regularization.dropout=0.3", "model.activation=tanh")
    bare = prepared(*DIGITS, "model=cnn", "model.dense=0").module.network
    outputs = [
        list(
            prepared(
                *DIGITS, "model=cnn", f"model.output_scale={scale}"
            ).module.network.parameters()
        )[-2]
        for scale in (0.01, 1)
    ]
    spread = [weight.std().item() for weight in outputs]
    kernels = " ".join("x".join(map(str, shape)) for shape in shapes[:4])
    return (
        f"{within(error, 1e-4)}; {kernels}; {count:,};"
        f" {' '.join(f'{share:.2f}' for share in drops)}",
        error < 1e-4
        and shapes[:4] == [(2, 1, 3, 3), (2, 2, 3, 3), (3, 2, 3, 3), (3, 3, 3, 3)]
        and count < 150_000
        and np.allclose(drops, [0.3], atol=0.01)
        and sum(isinstance(layer, nn.Linear) for layer in bare.modules()) == 1
        and abs(spread[0] / spread[1] - 0.01) < 1e-4,
    )


def pool_row(pool: str, features: int, claim: str) -> None:
    @proof(
        f"model.pool={pool}",
        "G30",
        claim,
        "outputs minus the formula; inputs of the head, of 3 channels of 2 x 2",
    )
    def pooled() -> Measured:
        error, shapes = cnn_error(pool)
        return f"{within(error, 1e-4)}; {shapes[4][1]}", error < 1e-4 and shapes[4] == (5, features)


pool_row("all", 12, "the head sees every pixel of the last stage")
pool_row("mean", 3, "the head sees the mean of every channel")


# --- of others ------------------------------------------------------------------------------------


@contextlib.contextmanager
def stand_in() -> Iterator[list[dict[str, Any]]]:
    """A `timm` of a single small network, and how it was asked for it."""
    asked: list[dict[str, Any]] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        asked.append({"name": name, **options})
        return nn.Sequential(
            nn.Conv2d(options["in_chans"], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
        )

    library = SimpleNamespace(
        is_model=lambda name: name == "small",
        list_models=lambda: ["small"],
        create_model=create_model,
    )
    with mock.patch.dict(sys.modules, {"timm": library}):
        yield asked


@proof(
    "model=pretrained",
    "G30",
    "a network of timm below a last layer of our own; freeze trains that layer only",
    "with a stand-in for timm: what it is asked for; parameters that move in training, frozen and"
    " not; share zeroed",
    covers="model.name model.weights model.freeze model.dropout model.output_scale",
)
def pretrained() -> Measured:
    words = (*DIGITS, "model=pretrained", "model.name=small", "model.output_scale=1")
    moved = []
    with stand_in() as asked:
        for more in (("model.freeze=true", "model.weights=false"), ("model.freeze=false",)):
            steps = train(*words, *more).steps
            moved.append(
                sum(
                    not torch.equal(value, steps[-1].after[name])
                    for name, value in steps[0].before.items()
                )
            )
        wrong = refusal(*words, "model.name=smal")
        drops = zeroed(*words, "regularization.dropout=0.3")
    with mock.patch.dict(sys.modules, {"timm": None}):
        missing = refusal(*words)
    options = [(call["name"], call["pretrained"], call["in_chans"]) for call in asked[:2]]
    return (
        f"timm itself not run; stand-in: {options[0][0]}, weights {options[0][1]} and"
        f" {options[1][1]}; {moved[0]} and"
        f" {moved[1]} of 6; {drops[0]:.2f}; without timm refused: {missing.partition(': ')[2]}",
        options == [("small", False, 1), ("small", True, 1)]
        and moved == [2, 6]
        and "did you mean small?" in wrong
        and "timm" in missing
        and "pip install" in missing
        and abs(drops[0] - 0.3) < 0.02,
    )


# --- augmentation ---------------------------------------------------------------------------------


def digits(*words: str) -> list[Batch]:
    return train_batches(*DIGITS, "model=linear", *words)[1]


@proof(
    "regularization=shift",
    "G24",
    "moves every image by up to so many pixels each way, the edge repeated",
    "images of digits that are a moved copy, 2 pixels; different moves; the largest; by the"
    " file's own number",
    covers="regularization.shift",
)
def shift() -> Measured:
    moved, images, offsets = moves_of(digits("regularization=shift", "regularization.shift=2"), 2)
    own = moves_of(digits("regularization=shift"), 1)[2]
    largest = [max(abs(pixels) for place in found for pixels in place) for found in (offsets, own)]
    return f"{moved} of {images}; {len(offsets)}; {largest[0]}; {largest[1]}", (
        (moved, len(offsets), largest) == (images, 25, [2, 1]) and len(own) == 9
    )


def moves_of(batches: list[Batch], most: int) -> tuple[int, int, set[tuple[int, int]]]:
    """Images that are moved copies, all images, and by how many
    pixels down and right they were moved.
    """
    moved, images, offsets = 0, 0, set()
    steps = range(2 * most + 1)
    for batch in batches[:4]:
        padded = np.pad(batch.x[:, 0], ((0, 0), (most, most), (most, most)), mode="edge")
        for given, seen in zip(padded, batch.seen[:, 0], strict=True):
            places = [
                (r, c)
                for r in steps
                for c in steps
                if np.array_equal(given[r : r + 8, c : c + 8], seen)
            ]
            moved, images = moved + bool(places), images + 1
            offsets |= {(row - most, column - most) for row, column in places[:1]}
    return moved, images, offsets


def boxes(changed: np.ndarray) -> bool:
    """Whether all changed pixels [H, W] form a rectangle."""
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return not len(rows) or bool(
        changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    )


@proof(
    "regularization=cutmix data=digits",
    "G24",
    "a box of another image, the same box in the whole batch",
    "pixels that differ in any image form a rectangle, in batches; share of the box minus that in"
    " the targets",
)
def cutmix_images() -> Measured:
    with idx_folder(8) as (
        folder,
        _,
    ):  # every pixel of every image is drawn, so that a box is seen whole
        words = (
            f"data.root={folder}",
            "data.batch_size=24",
            "trainer.max_epochs=4",
            "data.scaling=none",
            "model=linear",
        )
        _, found = train_batches("data=mnist", *words, "regularization=cutmix")
    rectangles, error = 0, 0.0
    for batch in found:
        changed = (batch.seen != batch.x).any((0, 1))
        rectangles += boxes(changed)
        own = batch.targets[np.arange(len(batch.y)), batch.y.astype(int)].min()
        error = max(error, abs(1 - own - changed.mean()))
    return f"{rectangles} of {len(found)}; {within(error, 1e-4)}", rectangles == len(
        found
    ) and error < 1e-4


@proof(
    "regularization=cutout data=digits",
    "G24",
    "a box of zeros with that share of each side, at a place of its own in every image",
    "sides of the box with 0.5, of 8 pixels; places of it in a batch of 64; pixels that differ"
    " outside",
)
def cutout_images() -> Measured:
    batch = digits("regularization=cutout", "regularization.cutout=0.5", "data.scaling=none")[0]
    places, outside = set(), 0
    for given, seen in zip(batch.x[:, 0], batch.seen[:, 0], strict=True):
        fits = [(r, c) for r in range(5) for c in range(5) if not seen[r : r + 4, c : c + 4].any()]
        rest = [
            (r, c)
            for r, c in fits
            if np.array_equal(
                np.delete(given.ravel(), box(r, c)), np.delete(seen.ravel(), box(r, c))
            )
        ]
        outside += not rest
        places |= set(rest[:1])
    return f"4 x 4; {len(places)} of 25; {outside} images", outside == 0 and len(places) > 10


def box(row: int, column: int) -> list[int]:
    """Numbers of the pixels of a box of 4 x 4 in an image of 8 x 8."""
    return [8 * (row + r) + column + c for r in range(4) for c in range(4)]
