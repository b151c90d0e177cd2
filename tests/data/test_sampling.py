"""Which rows an epoch draws: balanced ones, and those of a sampler of one's own."""

import pytest
import torch

from conftest import SMALL
from goldilocks.config.build import check_arguments
from goldilocks.data.base import TableData
from goldilocks.data.loaders import TensorLoader
from goldilocks.data.sampling import Balanced, RowSampler, draw_weighted
from goldilocks.errors import Refused
from goldilocks.training.components import prepare

TARGET = torch.tensor([0] * 80 + [1] * 15 + [2] * 5)


def rows(loader, epoch):
    loader.set_epoch(epoch)
    return torch.cat([x for item in loader for x, _ in item.split()]).flatten().long()


def make(sampler, target=TARGET, **options):
    x = torch.arange(len(target))[:, None].float()
    return TensorLoader(x, target, batch_size=10, shuffle_seed=3, row_sampler=sampler, **options)


@pytest.mark.parametrize("target", [TARGET, (TARGET > 0).float()[:, None]], ids=["classes", "two"])
def test_balanced_draws_every_class_alike(target):
    loader = make(Balanced(), target)
    drawn = target.flatten().long()[torch.cat([rows(loader, epoch) for epoch in range(60)])]
    shares = drawn.bincount() / len(drawn)
    assert len(drawn) == 6000
    assert torch.allclose(shares, torch.full_like(shares, 1 / len(shares)), atol=0.03)


def test_an_epoch_is_drawn_again_the_same_and_another_one_differently():
    one, two = make(Balanced()), make(Balanced(), batches_per_item=4)
    rows(one, 0)  # what came before does not matter, nor does torch's own generator
    torch.manual_seed(9)
    assert torch.equal(rows(one, 4), rows(two, 4))
    assert not torch.equal(rows(one, 4), rows(one, 5))


def test_two_processes_share_the_batches_of_one():
    x = torch.arange(len(TARGET))[:, None].float()
    sampler = Balanced()
    alone = TensorLoader(x, TARGET, batch_size=20, shuffle_seed=3, row_sampler=sampler)
    whole = rows(alone, 2)
    parts = [rows(make(Balanced(), rank=rank, world=2), 2) for rank in range(2)]
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())


def test_weights_say_how_often_a_row_is_drawn():
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0]).repeat(2000)
    drawn = draw_weighted(weights, torch.Generator().manual_seed(0)) % 4
    counts = drawn.bincount(minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.1)


class TooFew(RowSampler):
    def __call__(self, target, generator):
        return torch.arange(3)


def test_what_is_not_rows_is_refused():
    with pytest.raises(Refused, match=r"^data\.sampler: TooFew gives \[3\] .* \[100\] whole"):
        rows(make(TooFew()), 0)


# --- options --------------------------------------------------------------------------------------


def test_the_option_draws_training_rows_only(compose):
    data = prepare(compose(*SMALL, "data.sampler=balanced"), warn=False).data
    assert isinstance(data.loader("train", shuffle_seed=0).row_sampler, Balanced)
    assert data.loader("val").row_sampler is None
    assert prepare(compose(*SMALL), warn=False).data.row_sampler is None


def test_a_sampler_of_ones_own_is_a_class_in_the_option(compose, tmp_path, monkeypatch):
    (tmp_path / "own_drawing.py").write_text(
        "import torch\nfrom goldilocks.data.sampling import RowSampler, draw_weighted\n\n\n"
        "class Late(RowSampler):\n"
        "    def __init__(self, share: float = 0.5):\n"
        "        self.share = share\n\n"
        "    def __call__(self, target, generator):\n"
        "        return draw_weighted(torch.linspace(self.share, 1, len(target)), generator)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [
        "data.sampler={_target_: own_drawing.Late, share: 0.1}",
        "packages=[project,own_drawing]",
    ]
    data = prepare(compose(*SMALL, *words), warn=False).data
    assert data.row_sampler.share == 0.1
    drawn = rows(data.loader("train", shuffle_seed=0), 0)
    assert len(drawn) > 0


@pytest.mark.parametrize("value", ["often", 3, {"_target_": "torch.nn.ReLU"}])
def test_anything_else_is_refused(value):
    with pytest.raises(Refused, match=r"^data\.sampler"):
        check_arguments(TableData, {"sampler": value}, "data")


def test_a_regression_has_no_classes_to_balance(compose):
    with pytest.raises(Refused, match=r"^data\.sampler=balanced: .* leave it out$"):
        prepare(compose(*SMALL, "data=diabetes", "data.sampler=balanced"), warn=False)
