import itertools

import pytest
import torch

from goldilocks.data.loaders import TensorLoader, batch_edges, epoch_seed


def make(num_rows, **options):
    rows = torch.arange(num_rows)
    return TensorLoader(rows[:, None].float(), rows, **options)


def batches(loader, epoch=0):
    """The batches of an epoch, whatever the items."""
    loader.set_epoch(epoch)
    return [batch for item in loader for batch in item.split()]


def order(loader, epoch=0):
    return torch.cat([y for _, y in batches(loader, epoch)]).tolist()


SHAPES = [(1, 4), (2, 4), (4, 4), (5, 4), (9, 4), (10, 4), (33, 8), (100, 32), (7, 100)]


@pytest.mark.parametrize(("num_rows", "batch_size"), SHAPES)
@pytest.mark.parametrize("batches_per_item", [1, 3, 64])
@pytest.mark.parametrize("shuffle_seed", [None, 5])
def test_every_row_comes_once_an_epoch_with_its_target(
    num_rows, batch_size, batches_per_item, shuffle_seed
):
    loader = make(
        num_rows,
        batch_size=batch_size,
        batches_per_item=batches_per_item,
        shuffle_seed=shuffle_seed,
    )
    for epoch in range(3):
        found = batches(loader, epoch)
        assert sorted(torch.cat([y for _, y in found]).tolist()) == list(range(num_rows))
        assert all(torch.equal(x[:, 0].long(), y) for x, y in found)


@pytest.mark.parametrize(("num_rows", "batch_size"), SHAPES)
def test_batches_are_full_but_the_last_and_none_has_a_single_row(num_rows, batch_size):
    sizes = [len(y) for _, y in batches(make(num_rows, batch_size=batch_size, shuffle_seed=0))]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1
    assert min(sizes) >= min(2, num_rows)


def test_a_single_last_row_joins_the_batch_before():
    assert [len(y) for _, y in batches(make(9, batch_size=4))] == [4, 5]
    assert [len(y) for _, y in batches(make(10, batch_size=4))] == [4, 4, 2]
    assert batch_edges(1, 4) == [0, 1]


def test_the_order_depends_on_seed_and_epoch_alone():
    one, two = make(50, batch_size=8, shuffle_seed=3), make(50, batch_size=8, shuffle_seed=3)
    order(one, epoch=0)  # what came before does not matter, nor does torch's own generator
    torch.manual_seed(99)
    assert order(one, epoch=4) == order(two, epoch=4)


def test_every_epoch_and_seed_has_an_order_of_its_own():
    loaders = [make(50, batch_size=8, shuffle_seed=seed) for seed in range(5)]
    orders = {tuple(order(loader, epoch)) for loader in loaders for epoch in range(5)}
    assert len(orders) == 25


def test_without_a_seed_rows_keep_their_order():
    assert order(make(30, batch_size=7), epoch=3) == list(range(30))


@pytest.mark.parametrize("batches_per_item", [2, 3, 7, 64])
@pytest.mark.parametrize("max_batches", [None, 5])
def test_batches_are_the_same_for_any_number_in_an_item(batches_per_item, max_batches):
    options = {"batch_size": 8, "shuffle_seed": 1, "max_batches": max_batches}
    one, several = make(105, **options), make(105, batches_per_item=batches_per_item, **options)
    for (x, y), (other_x, other_y) in zip(batches(one, 2), batches(several, 2), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


@pytest.mark.parametrize(("max_batches", "expected"), [(1, 1), (3, 3), (5, 5), (100, 5)])
def test_max_batches_takes_the_first_of_the_epoch(max_batches, expected):
    full = batches(make(40, batch_size=8, shuffle_seed=2))
    limited = make(40, batch_size=8, shuffle_seed=2, max_batches=max_batches)
    assert limited.num_batches == expected
    for (_, y), (_, other) in zip(batches(limited), full[:expected], strict=True):
        assert torch.equal(y, other)


@pytest.mark.parametrize(
    ("num_rows", "batches_per_item", "items"),
    [(40, 1, 5), (40, 2, 3), (40, 5, 1), (40, 64, 1), (3, 9, 1)],
)
def test_the_length_is_the_number_of_items(num_rows, batches_per_item, items):
    loader = make(num_rows, batch_size=8, batches_per_item=batches_per_item)
    assert len(loader) == items == len(list(loader))


def test_seeds_of_neighbouring_epochs_runs_and_devices_differ():
    grid = list(itertools.product(range(30), range(300), range(4)))
    assert len({epoch_seed(*place) for place in grid}) == len(grid)


def test_the_largest_seed_is_one_that_torch_takes():
    seed = epoch_seed(2**32 - 1, 10**6, 1000)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_lightning_finds_the_epochs_setter_where_it_looks():
    """Lightning calls `loader.sampler.set_epoch`;
    without it every epoch would have the same order.
    """
    loader = make(50, batch_size=8, shuffle_seed=0)
    loader.sampler.set_epoch(7)
    assert torch.cat([y for item in loader for _, y in item.split()]).tolist() == order(
        make(50, batch_size=8, shuffle_seed=0), epoch=7
    )
