import pytest
import torch
import torch.nn.functional as F

import fitting
from drawing import draw, make, score
from fitting import make_network
from goldilocks.tasks.losses import AUTO


def draw_members(task, members=4, rows=64):
    """Raw outputs of an ensemble, [B, K, C], and targets."""
    output, target = draw(task, rows)
    torch.manual_seed(9)
    return output[:, None] + torch.randn(rows, members, output.shape[1]), target


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("regression", {}),
        ("regression", {"output": "tanh"}),
        ("regression", {"loss": "huber"}),
        *(
            ("binary", options)
            for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"})
        ),
        *(
            ("multiclass", options)
            for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"})
        ),
    ],
)
def test_an_ensemble_is_trained_on_the_mean_of_its_members_losses(task, options):
    output, target = draw_members(task)
    counts = {"regression": (), "binary": (30, 10), "multiclass": (30, 10, 5, 5, 14)}[task]
    module = make(task, output.shape[2], facts={"class_counts": counts}, **options)
    expected = torch.stack(
        [module.loss(output[:, k], target, smooth=True) for k in range(4)]
    ).mean()
    assert torch.allclose(module.loss(output, target, smooth=True), expected, rtol=1e-5)


@pytest.mark.parametrize("task", AUTO)
def test_an_ensemble_predicts_the_mean_of_its_members(task):
    output, target = draw_members(task)
    module = make(task, output.shape[2], shift=(3.0,), scale=(2.0,))
    expected = torch.stack([module.predict(output[:, k]) for k in range(4)]).mean(0)
    said = module.predict(output)
    assert torch.allclose(said, expected, rtol=1e-5, atol=1e-6)
    if task == "multiclass":
        loss = F.nll_loss(expected.log(), target)
    elif task == "binary":
        loss = F.binary_cross_entropy(expected, target)
    else:
        loss = F.mse_loss(output.mean(1), target)
    assert torch.allclose(module.loss(output, target), loss, rtol=1e-5)
    assert score(module, output, target) == pytest.approx(
        score(module, module.combine(output), target)
    )


def test_the_members_values_are_averaged_behind_the_output_function():
    output, _ = draw_members("regression")
    task = make("regression", output="sigmoid", shift=(3.0,), scale=(2.0,))
    assert torch.allclose(task.predict(output), output.sigmoid().mean(1) * 2 + 3)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_members_that_are_certain_stay_finite(task):
    """Their probabilities are 0 and 1 in single precision;
    logarithms of these would be infinite.
    """
    outputs = {"binary": 1, "multiclass": 3}[task]
    output = torch.full((2, 4, outputs), -300.0)
    output[0, :, 0] = 300.0
    output.requires_grad_()
    module = make(task, outputs)
    assert module.combine(output).isfinite().all()
    wrong = torch.tensor([[0.0], [1.0]]) if task == "binary" else torch.tensor([1, 1])
    loss = module.loss(output, wrong)
    assert loss.item() > 100
    loss.backward()
    assert output.grad.isfinite().all()


class Members(torch.nn.Module):
    """Two networks as one: raw outputs [B, 2, C]."""

    def __init__(self, outputs):
        super().__init__()
        self.members = torch.nn.ModuleList(make_network(seed, outputs) for seed in (1, 2))

    def forward(self, x):
        return torch.stack([member(x) for member in self.members], 1)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_an_ensemble_trains(task):
    fitted = fitting.make(task=task, optimizer=fitting.sgd)
    module = fitted.module
    module.network = Members(fitted.data.spec.num_outputs)
    fitted.trainer.fit(module, fitted.data)
    first, last = fitted.history.metrics[0], fitted.history.metrics[-1]
    assert last["val/loss"] < first["val/loss"]
    x, y = fitted.data.tensors["val"]
    said = torch.stack([module.task.predict(member(x)) for member in module.network.members]).mean(
        0
    )
    assert torch.allclose(module(x), said, atol=1e-5)
    if task == "multiclass":
        assert last["val/accuracy"] == pytest.approx((said.argmax(1) == y).float().mean().item())


def test_an_ensemble_takes_soft_targets():
    output, target = draw_members("multiclass")
    soft = F.one_hot(target, 5) * 0.8 + 0.04
    module = make("multiclass", 5)
    expected = torch.stack([module.loss(output[:, k], soft, smooth=True) for k in range(4)]).mean()
    assert torch.allclose(module.loss(output, soft, smooth=True), expected, rtol=1e-5)
