"""The worked loss, against its formula by hand."""

import torch

from project.loss import AsymmetricError


def test_values_that_are_too_low_cost_more():
    output = torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    target = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert AsymmetricError(too_low=3.0)(output, target).tolist() == [1.5, 2.0]
    assert torch.equal(
        AsymmetricError(too_low=1.0)(output, target), (output - target).square().mean(1)
    )
