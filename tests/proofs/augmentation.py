"""Augmentation: training batches changed at random (G24)."""

import numpy as np
from scipy import stats

from proofs.drive import Batch, train_batches
from proofs.table import Measured, proof, within

TABLE = (
    "data=wine",
    "data.batch_size=16",
    "trainer.max_epochs=10",
)  # 13 features, 106 rows to train on


def batches(*words: str) -> list[Batch]:
    return train_batches(*TABLE, *words)[1]


def unchanged(*words: str) -> bool:
    """Whether validation is left alone:
    the same loss as the formula gives on the rows as they are.
    """
    fit, _ = train_batches(*TABLE, *words)
    x, y = fit.parts.data.tensors["val"]
    output = fit.network.eval()(x).detach().double().numpy()
    plain = -np.log(
        (np.exp(output) / np.exp(output).sum(1, keepdims=True))[np.arange(len(y)), y.numpy()]
    ).mean()
    return bool(abs(fit.metrics[-1]["val/loss"] - plain) < 1e-5)


def told(same: bool) -> str:
    return "as it is" if same else "changed too"


@proof(
    "regularization=noise",
    "G24",
    "adds normal noise of that standard deviation to the scaled inputs, in training only",
    "what the network gets minus the rows: mean, standard deviation, kurtosis; validation",
    covers="regularization.noise",
)
def noise() -> Measured:
    added = np.concatenate(
        [(batch.seen - batch.x).ravel() for batch in batches("regularization=noise")]
    )
    kurtosis = stats.kurtosis(added, fisher=False)
    same = unchanged("regularization=noise")
    return (
        f"{round(added.mean(), 2) + 0.0:.2f}, {added.std():.3f}, {kurtosis:.1f}; {told(same)}",
        abs(added.mean()) < 0.003
        and abs(added.std() - 0.1) < 0.002
        and abs(kurtosis - 3) < 0.15
        and same,
    )


# --- mixtures of rows -----------------------------------------------------------------------------


def shares(found: list[Batch]) -> list[float]:
    """The share that a row keeps of itself, by its target;
    of the batches in which it meets another class.
    """
    own = [batch.targets[np.arange(len(batch.y)), batch.y.astype(int)] for batch in found]
    return [float(targets.min()) for targets in own if targets.min() < 1 - 1e-4]


def larger_share(alpha: float) -> float:
    """The mean of the larger of s and 1 - s, s from Beta(alpha, alpha)."""
    places = (np.arange(20_000) + 0.5) / 20_000
    share = stats.beta(alpha, alpha).ppf(places)
    return float(np.maximum(share, 1 - share).mean())


@proof(
    "regularization=mixup",
    "G24",
    "s x + (1 - s) x', targets too, the larger share its own, s from Beta(a, a)",
    "mean share in the targets, Beta's; inputs minus those of the best partner, and its class;"
    " validation",
    covers="regularization.mixup",
)
def mixup() -> Measured:
    found = batches("regularization=mixup")
    share, error, partners = np.mean(shares(found)), 0.0, True
    for batch in found[:10]:
        own = batch.targets[np.arange(len(batch.y)), batch.y.astype(int)].min()
        if own > 1 - 1e-4:
            continue
        candidates = own * batch.x[:, None] + (1 - own) * batch.x[None]  # [B, B, F]
        distance = np.abs(candidates - batch.seen[:, None]).max(-1)
        other = distance.argmin(1)
        error = max(error, distance.min(1).max())
        mixed = (
            own * np.eye(3)[batch.y.astype(int)] + (1 - own) * np.eye(3)[batch.y[other].astype(int)]
        )
        partners &= bool(np.abs(mixed - batch.targets).max() < 1e-4)
    same, expected = unchanged("regularization=mixup"), larger_share(0.2)
    return (
        f"{share:.2f}, {expected:.2f}; {within(error, 1e-4)},"
        f" {'the same' if partners else 'another'}; {told(same)}",
        bool(abs(share - expected) < 0.05 and error < 1e-4 and partners and same),
    )


@proof(
    "regularization=cutmix",
    "G24",
    "the same features of every row come from another row; targets are mixed by the share that"
    " was kept",
    "features taken of 13, mean of the share kept, Beta's; that in the targets minus that of"
    " features; validation",
    covers="regularization.cutmix",
)
def cutmix() -> Measured:
    found = batches("regularization=cutmix")
    error, kept = 0.0, []
    for batch in found:
        taken = (np.abs(batch.seen - batch.x) > 1e-6).any(0)
        moved = [column for column in range(13) if taken[column]]
        from_batch = all(
            set(batch.seen[:, column]) <= set(batch.x[:, column]) for column in range(13)
        )
        own = batch.targets[np.arange(len(batch.y)), batch.y.astype(int)].min()
        kept.append(1 - len(moved) / 13)
        if own < 1 - 1e-4:
            error = max(error, abs(own - kept[-1]))
        error = error if from_batch else 1.0
    same, share, expected = unchanged("regularization=cutmix"), np.mean(kept), larger_share(1.0)
    taken_most = round(13 * (1 - min(kept)))
    return (
        f"up to {taken_most}, {share:.2f}, {expected:.2f}; {within(error, 1e-4)}; {told(same)}",
        bool(abs(share - expected) < 0.05 and error < 1e-4 and same and taken_most <= 6),
    )


@proof(
    "regularization=cutout",
    "G24",
    "sets that share of every row's features to zero, in training only",
    "tables: share of zeros in what the network gets, of rows with none and with several; other"
    " values; validation",
    covers="regularization.cutout",
)
def cutout() -> Measured:
    found = batches("regularization=cutout")
    x, seen = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("x", "seen"))
    zeros = seen == 0
    rows = zeros.sum(1)
    rest = np.abs(seen - x)[~zeros].max()
    same = unchanged("regularization=cutout")
    return (
        f"{zeros.mean():.2f}, {(rows == 0).mean():.2f}, {(rows > 1).mean():.2f}; off by {rest:g};"
        f" {told(same)}",
        bool(
            abs(zeros.mean() - 0.2) < 0.01
            and rest == 0
            and same
            and abs((rows == 0).mean() - 0.8**13) < 0.02
        ),
    )
