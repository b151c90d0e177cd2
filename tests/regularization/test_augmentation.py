import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fitting import assert_same, fit
from goldilocks.data.spec import Spec
from goldilocks.regularization.augmentation import (
    Augmentation,
    add_noise,
    cutmix,
    cutout,
    mixup,
    shift,
)
from goldilocks.regularization.strengths import Regularization


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


def marked(*shape):
    """Rows in which every value is the row's number, from 1, and targets that name the row."""
    rows = torch.arange(1, shape[0] + 1).float()
    return rows.view(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous(), torch.eye(shape[0])


def test_noise_has_mean_zero_and_the_standard_deviation_that_was_asked_for():
    added = add_noise(torch.full((1000, 100), 5.0), 0.3) - 5
    assert added.mean().abs() < 0.005
    assert added.std().item() == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_mixup_blends_inputs_and_targets_by_the_same_share(alpha):
    x, y = marked(8, 3)
    mixed, target = mixup(x, y, alpha)
    assert torch.allclose(target.sum(1), torch.ones(8))
    assert torch.allclose(
        mixed, (target @ torch.arange(1, 9).float())[:, None].expand(8, 3), atol=1e-5
    )
    assert (target.diagonal() >= 0.5).all()


def test_mixups_share_is_that_of_the_beta_distribution():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    shares = [
        max(mixed, 1 - mixed) for mixed in (mixup(x, y, 0.2)[1][0].item() for _ in range(4000))
    ]
    expected = np.random.default_rng(1).beta(0.2, 0.2, 200_000)
    mixing = [
        share for share in shares if share < 1 or share > 1
    ]  # a row that is its own partner stays as it is
    assert len(mixing) > 1500
    assert np.mean(mixing) == pytest.approx(np.maximum(expected, 1 - expected).mean(), abs=0.01)


def test_cutmix_of_rows_takes_whole_features_and_weighs_targets_by_their_share():
    kept = set()
    for _ in range(50):
        x, y = marked(6, 20)
        mixed, target = cutmix(x, y, 1.0)
        other = target.clone().fill_diagonal_(0).argmax(1)
        assert ((mixed == x) | (mixed == x[other])).all()
        own = (mixed == x).float().mean(1)
        assert torch.allclose(target.diagonal(), own, atol=1e-6)
        assert torch.allclose(target.sum(1), torch.ones(6))
        kept |= set(own.tolist())
    assert min(kept) >= 0.5
    assert len(kept) > 5


def test_cutmix_of_images_puts_in_one_box():
    for _ in range(50):
        x, y = marked(6, 2, 10, 12)
        mixed, target = cutmix(x, y, 1.0)
        for row in range(6):
            foreign = mixed[row, 0] != x[row, 0]
            assert torch.equal(foreign, mixed[row, 1] != x[row, 1])  # all channels alike
            if foreign.any():
                down, right = foreign.nonzero().T
                box = (down.max() - down.min() + 1) * (right.max() - right.min() + 1)
                assert foreign.sum() == box  # nothing else
            assert target[row, row].item() == pytest.approx(
                1 - foreign.float().mean().item(), abs=1e-6
            )


def test_cutout_of_rows_zeroes_that_share_of_the_features():
    out = cutout(torch.ones(500, 40), 0.2)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (out == 0).float().mean(0).std() < 0.05  # every feature alike


def test_cutout_of_images_zeroes_a_box_of_its_own_in_each():
    out = cutout(torch.ones(2000, 3, 10, 20), 0.3)
    holes = out == 0
    assert (holes.sum((1, 2, 3)) == 3 * 3 * 6).all()
    assert torch.equal(holes[:, 0], holes[:, 2])
    corners = {tuple(hole.nonzero()[0].tolist()) for hole in holes[:, 0]}
    assert len(corners) > 30
    assert holes[:, 0].any(0).all()  # every place is reached


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_shifted_image_is_a_window_of_the_image_with_its_edge_repeated(pixels):
    images = torch.randn(100, 2, 5, 7)
    moved, places = shift(images, pixels), set()
    for image, result in zip(images, moved, strict=True):
        padded = F.pad(image, (pixels,) * 4, mode="replicate")
        found = [
            (down, right)
            for down in range(2 * pixels + 1)
            for right in range(2 * pixels + 1)
            if torch.equal(padded[:, down : down + 5, right : right + 7], result)
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > (2 * pixels + 1) ** 2 / 2


def spec_of(task, outputs, shape=(4,)):
    return Spec(task, shape, outputs)


@pytest.mark.parametrize(
    ("task", "outputs", "target"),
    [
        ("multiclass", 3, torch.tensor([0, 1, 2, 2])),
        ("binary", 1, torch.tensor([[0.0], [1.0], [1.0], [0.0]])),
        ("regression", 2, torch.tensor([[0.0, 1.0], [1.0, 2.0], [1.0, 1.0], [0.5, 0.0]])),
    ],
)
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_targets_of_every_task_are_mixed(name, task, outputs, target):
    augment = Augmentation(Regularization(**{name: 1.0}), spec_of(task, outputs))
    x, y = augment(torch.randn(4, 4), target)
    assert augment.active
    assert y.shape == (4, outputs)
    plain = F.one_hot(target, 3).float() if task == "multiclass" else target
    assert torch.allclose(y.sum(0), plain.sum(0), atol=1e-5)  # blended, nothing lost
    assert x.shape == (4, 4)


def test_with_both_each_batch_takes_one_of_them():
    augment = Augmentation(Regularization(mixup=1.0, cutmix=1.0), spec_of("regression", 1))
    x = torch.arange(10.0)[:, None].expand(10, 8).contiguous()
    blended = [
        not torch.equal(mixed, mixed.round())
        for mixed in (augment(x, x[:, :1])[0] for _ in range(60))
    ]
    assert 15 < sum(blended) < 45


def test_nothing_is_changed_where_all_strengths_are_zero():
    augment = Augmentation(Regularization(dropout=0.5, ema=0.9), spec_of("multiclass", 3))
    assert not augment.active
    x, y = torch.randn(4, 4), torch.tensor([0, 1, 2, 2])
    assert augment(x, y) == (x, y)


# --- in training ----------------------------------------------------------------------------------

ALL = {"noise": 0.1, "mixup": 0.4, "cutmix": 1.0, "cutout": 0.2}


@pytest.mark.parametrize("name", ALL)
def test_each_changes_training_and_not_evaluation(name):
    plain, changed = fit(), fit(regularization={name: ALL[name]})
    assert changed.history.metrics[0]["train/loss"] != plain.history.metrics[0]["train/loss"]
    changed.network.load_state_dict(plain.network.state_dict())
    for made in (plain, changed):
        made.trainer.validate(made.module, made.data, verbose=False)
    assert changed.module.epoch_metrics["val/loss"] == plain.module.epoch_metrics["val/loss"]


@pytest.mark.parametrize("several", [7, 64])
def test_the_random_changes_do_not_depend_on_the_steps_in_a_call(several):
    one, other = (fit(regularization=ALL, steps_per_execution=count) for count in (1, several))
    assert_same(one, other)


def test_a_regression_trains_on_mixed_rows():
    fitted = fit(task="regression", regularization=ALL)
    assert all(np.isfinite(list(epoch.values())).all() for epoch in fitted.history.metrics)
    assert fitted.history.metrics[-1]["val/loss"] < fitted.history.metrics[0]["val/loss"]
