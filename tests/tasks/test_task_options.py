import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as reference
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from drawing import draw, make, score
from goldilocks.errors import Refused
from goldilocks.tasks.outputs import OUTPUTS

# --- soft targets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("amount", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_probabilities_as_targets(weighted, amount, dtype):
    """As a batch's rows are mixed: cross-entropy with the mixed, then smoothed probabilities."""
    output, target = draw("multiclass")
    mixed = 0.3 * F.one_hot(target, 5) + 0.7 * F.one_hot(target.flip(0), 5)
    counts = (10, 20, 30, 5, 35)
    weights = torch.tensor(
        compute_class_weight("balanced", classes=np.arange(5), y=np.repeat(np.arange(5), counts))
    )
    task = make(
        *("multiclass", 5),
        facts={"class_counts": counts},
        class_weight="balanced" if weighted else "none",
        label_smoothing=amount,
    )
    soft = (mixed * (1 - amount) + amount / 5) * (weights if weighted else 1)
    output = output.to(dtype)
    expected = -(soft * output.double().log_softmax(1)).sum(1).mean()
    assert task.loss(output, mixed, smooth=True).item() == pytest.approx(
        expected.item(), rel=1e-5 if dtype == torch.float32 else 2e-2
    )


def test_one_class_for_certain_is_the_same_as_its_index():
    output, target = draw("multiclass")
    certain = F.one_hot(target, 5).float()
    for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"}):
        task = make("multiclass", 5, facts={"class_counts": (10, 20, 30, 5, 35)}, **options)
        assert torch.allclose(
            task.loss(output, certain, smooth=True), task.loss(output, target, smooth=True)
        )
        assert score(task, output, certain) == score(task, output, target)


def test_binary_targets_between_the_classes():
    output, target = draw("binary")
    mixed = 0.3 * target + 0.7 * target.flip(0)
    p = output.double().sigmoid()
    expected = -(mixed * p.log() + (1 - mixed) * (1 - p).log()).mean()
    task = make("binary")
    assert task.loss(output, mixed, smooth=True).item() == pytest.approx(expected.item())
    assert score(task, output, mixed) == score(task, output, (mixed > 0.5).float())


# --- class weights --------------------------------------------------------------------------------


def test_balanced_classes_weigh_as_in_scikit_learn():
    output, target = draw("multiclass")
    task = make(
        "multiclass",
        5,
        facts={"class_counts": np.bincount(target).tolist()},
        class_weight="balanced",
    )
    expected = compute_class_weight("balanced", classes=np.arange(5), y=target.numpy())
    assert task.class_weight.tolist() == pytest.approx(expected.tolist())
    weights = compute_sample_weight("balanced", target.numpy())
    said = reference.log_loss(target, output.double().softmax(1), sample_weight=weights)
    assert task.loss(output, target, smooth=True).item() == pytest.approx(said)
    assert torch.equal(task.loss(output, target), F.cross_entropy(output, target))


def test_balanced_binary_weighs_as_in_scikit_learn():
    output, _ = draw("binary")
    target = (torch.arange(64) % 8 == 0).float()[:, None]
    task = make("binary", facts={"class_counts": (56, 8)}, class_weight="balanced")
    weights = compute_sample_weight("balanced", target.squeeze(1).numpy())
    said = reference.log_loss(target, output.double().sigmoid(), sample_weight=weights)
    assert task.loss(output, target, smooth=True).item() == pytest.approx(said)
    assert torch.equal(
        task.loss(output, target), F.binary_cross_entropy_with_logits(output, target)
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_weights_hold_in_a_batch_of_one_class(task):
    """They weigh the rows against those of all batches,
    so they are not divided by the batch's own sum.
    """
    output, target = draw(task)
    counts = {"binary": (90, 10), "multiclass": (90, 10, 25, 25, 50)}[task]
    module = make(task, output.shape[1])
    weighted = make(task, output.shape[1], facts={"class_counts": counts}, class_weight="balanced")
    for index, count in enumerate(counts):
        rows = target.reshape(-1) == index
        plain = module.loss(output[rows], target[rows], smooth=True)
        factor = sum(counts) / len(counts) / count
        assert weighted.loss(output[rows], target[rows], smooth=True) == pytest.approx(
            (plain * factor).item()
        )


def test_class_weights_of_a_regression_are_refused():
    with pytest.raises(Refused, match=r"^task.class_weight=balanced: .*regression; leave it out$"):
        make("regression", class_weight="balanced")


# --- output functions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "formula"),
    [
        ("identity", lambda raw: raw),
        ("tanh", lambda raw: (raw.exp() - (-raw).exp()) / (raw.exp() + (-raw).exp())),
        ("sigmoid", lambda raw: 1 / (1 + (-raw).exp())),
        ("softplus", lambda raw: (1 + raw.exp()).log()),
    ],
)
def test_an_output_function_stands_before_the_loss_and_the_scale(output, formula):
    raw, target = draw("regression")
    task = make("regression", shift=(10.0,), scale=(4.0,), output=output)
    value = formula(raw.double())
    expected = ((value - target) ** 2).mean().item()
    assert task.loss(raw, target).item() == pytest.approx(expected, rel=1e-5)
    assert task.loss(raw, target, smooth=True).item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(task.predict(raw).double(), value * 4 + 10)
    found = score(task, raw, target)
    assert found["val/mae"] == pytest.approx((value - target).abs().mean().item() * 4, rel=1e-5)
    assert found["val/r2"] == pytest.approx(
        reference.r2_score(target.numpy(), value.numpy()), rel=1e-4
    )


@pytest.mark.parametrize(
    ("output", "least", "most"),
    [
        ("tanh", -1.1, 0.5),
        ("tanh", 0.0, 1.5),
        ("sigmoid", -0.1, 1.0),
        ("sigmoid", 0.0, 1.1),
        ("softplus", -0.1, 9.0),
    ],
)
def test_an_output_that_cannot_reach_the_targets_is_refused(output, least, most):
    with pytest.raises(
        Refused, match=rf"^task.output={output}: gives values .* write data.target_scaling=minmax"
    ):
        make("regression", facts={"target_range": (least, most)}, output=output)


@pytest.mark.parametrize(
    ("output", "least", "most"),
    [("tanh", -1.0, 1.0), ("sigmoid", 0.0, 1.0), ("softplus", 0.0, 1e6), ("identity", -9, 9)],
)
def test_an_output_that_reaches_the_targets_is_taken(output, least, most):
    assert make(
        "regression", facts={"target_range": (least, most)}, output=output
    ).output_function == (OUTPUTS[output][0] if output != "identity" else None)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_classes_keep_their_own_output(task, output):
    with pytest.raises(
        Refused,
        match=rf"^task.output={output}: .*{task} has its probabilities .*task.output=identity$",
    ):
        make(task, 3, output=output)
