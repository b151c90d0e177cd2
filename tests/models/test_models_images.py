"""Networks for images: cnn, and pretrained with a stand-in for timm."""

import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from finished import finished
from goldilocks import load
from goldilocks.config.build import build
from goldilocks.errors import Refused
from goldilocks.models.cnn import CNN
from goldilocks.models.init import init_linear, init_weight
from goldilocks.models.pretrained import Pretrained
from goldilocks.optimizers.optimizer import split_parameters
from goldilocks.training.checkpoints import load_checkpoint


@pytest.mark.parametrize("kind", [CNN, Pretrained])
@pytest.mark.parametrize("shape", [(13,), (8, 8)])
def test_a_table_is_refused(kind, shape):
    with pytest.raises(
        Refused,
        match=r"^model=(cnn|pretrained): needs images \(channels,height,width\), [^\n]*; write",
    ):
        kind(shape, 3)


# --- initial weights of a convolution -------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "variance"),
    [("he_normal", 2 / 180), ("lecun_uniform", 1 / 180), ("glorot_normal", 2 / (180 + 2700))],
)
def test_a_convolution_counts_the_pixels_that_it_sees(init, variance):
    """fan_in: 20 channels of 3 x 3; fan_out: 300 of 3 x 3, as in torch."""
    torch.manual_seed(0)
    weight = torch.empty(300, 20, 3, 3)
    init_weight(weight, init)
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    torchs = {"he_normal": nn.init.kaiming_normal_, "glorot_normal": nn.init.xavier_normal_}.get(
        init
    )
    if torchs:
        options = {"nonlinearity": "relu"} if init == "he_normal" else {}
        assert torchs(torch.empty(300, 20, 3, 3), **options).var().item() == pytest.approx(
            variance, rel=0.05
        )


def test_a_convolution_starts_without_bias():
    layer = nn.Conv2d(2, 3, 3)
    init_linear(layer, "auto", "relu")
    assert torch.equal(layer.bias, torch.zeros(3))


# --- cnn ------------------------------------------------------------------------------------------


def test_the_default_is_small():
    """At most 150,000 parameters for 28 x 28 pixels and ten classes."""
    assert sum(parameter.numel() for parameter in CNN((1, 28, 28), 10).parameters()) <= 150_000


@pytest.mark.parametrize("pool", ["mean", "all"])
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 9, 30), (1, 1, 5), (4, 1, 1)]
)
def test_images_of_any_size_pass(shape, pool):
    assert CNN(shape, 3, channels=[4, 6, 8, 10], convs=1, pool=pool)(
        torch.randn(5, *shape)
    ).shape == (5, 3)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("pool", ["mean", "all"])
def test_the_output_is_what_the_weights_say(norm, pool):
    torch.manual_seed(0)
    network = CNN(
        (2, 6, 6), 4, channels=[3, 5], convs=1, norm=norm, pool=pool, dense=7, dropout=0.5
    ).eval()
    convs = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)]
    dense, output = (layer for layer in network if isinstance(layer, nn.Linear))
    x = images = torch.randn(8, 2, 6, 6)
    for number, conv in enumerate(convs):
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        if norm == "batch":  # as it starts: mean 0, variance 1
            x = x / (1 + norms[number].eps) ** 0.5
        elif norm == "layer":
            mean, variance = (
                x.mean((1, 2, 3), keepdim=True),
                x.var((1, 2, 3), correction=0, keepdim=True),
            )
            x = (x - mean) / (variance + norms[number].eps).sqrt()
        x = F.max_pool2d(F.relu(x), 2, ceil_mode=True)
    assert x.shape == (8, 5, 2, 2)
    x = x.mean((2, 3)) if pool == "mean" else x.reshape(8, -1)
    x = F.relu(x @ dense.weight.T + dense.bias)
    assert torch.allclose(network(images), x @ output.weight.T + output.bias, atol=1e-5)
    assert len(norms) == (0 if norm == "none" else 2)


def test_each_stage_has_its_convolutions_and_halves_the_image():
    network = CNN((3, 16, 16), 2, channels=[4, 8], convs=3, dense=0)
    assert [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)] == [
        4,
        4,
        4,
        8,
        8,
        8,
    ]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in network) == 2
    assert network[-1].in_features == 8 * 4 * 4


def test_dropout_stands_before_the_output_only():
    network = CNN((1, 8, 8), 2, dropout=0.2)
    assert [layer.p for layer in network if isinstance(layer, nn.Dropout)] == [0.2]
    assert isinstance(network[-2], nn.Dropout)
    assert not any(isinstance(layer, nn.Dropout) for layer in CNN((1, 8, 8), 2))


@pytest.mark.parametrize(
    "given", [{"channels": []}, {"channels": [0]}, {"convs": 0}, {"dense": -1}, {"norm": "group"}]
)
def test_options_out_of_range_are_refused(given):
    node = {"_target_": "goldilocks.models.cnn.CNN", **given}
    with pytest.raises(Refused, match=r"^model\.\w+="):
        build(node, nn.Module, "model", input_shape=(1, 8, 8), num_outputs=2)


# --- pretrained -----------------------------------------------------------------------------------


class Features(nn.Module):
    """What timm gives for num_classes=0: pooled features."""

    def __init__(self, channels, size=None):
        super().__init__()
        self.conv, self.norm, self.size = (
            nn.Conv2d(channels, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            size,
        )

    def forward(self, x):
        assert self.size is None or x.shape[-1] == self.size, (
            f"Input height doesn't match model ({self.size})"
        )
        return self.norm(self.conv(x)).mean((2, 3))


@pytest.fixture
def timm(monkeypatch):
    """A stand-in; `made` holds how it was called."""
    module = ModuleType("timm")
    module.made = []

    def create_model(name, **options):
        module.made.append((name, options))
        if name == "offline" and options["pretrained"]:
            raise OSError("cannot reach\nthe server")
        return Features(options["in_chans"], size=224 if name == "vit_tiny" else None)

    module.create_model = create_model
    names = ["resnet18", "resnet50", "offline", "vit_tiny"]
    module.list_models = lambda: names
    module.is_model = lambda name: name in names
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_a_network_of_timm_gets_a_last_layer_of_ours(timm):
    network = Pretrained((3, 32, 32), 7, name="resnet50", dropout=0.25, output_scale=1.0).eval()
    assert timm.made == [("resnet50", {"pretrained": True, "in_chans": 3, "num_classes": 0})]
    x = torch.randn(4, 3, 32, 32)
    features = network.backbone(x)
    assert torch.allclose(
        network(x), features @ network.output.weight.T + network.output.bias, atol=1e-6
    )
    assert network(x).shape == (4, 7)
    assert network.dropout.p == 0.25
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.train().backbone.training


def test_a_finished_run_is_loaded_without_the_weights_of_timm(timm, tmp_path):
    run = finished(tmp_path, "data=digits", "model=pretrained", "trainer.max_epochs=1")
    asked = [options["pretrained"] for _, options in timm.made]
    model = load(run)
    assert [options["pretrained"] for _, options in timm.made] == [*asked, False]
    assert all(asked) and asked
    state = load_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]
    assert torch.equal(
        model.members[0].network.backbone.conv.weight, state["network.backbone.conv.weight"]
    )


def test_trying_the_network_leaves_it_as_it_came(timm):
    torch.manual_seed(3)
    features = Features(1)
    torch.manual_seed(3)
    network = Pretrained((1, 8, 8), 2)
    mine, theirs = network.backbone.state_dict(), features.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert network.backbone.training


def test_a_frozen_network_trains_the_last_layer_only(timm):
    network = Pretrained((1, 8, 8), 2, freeze=True).train()
    weights, rest = split_parameters(network)
    assert {id(parameter) for parameter in weights + rest} == {
        id(p) for p in network.output.parameters()
    }
    assert network.training and network.output.training
    assert not network.backbone.training and not network.backbone.norm.training
    before = network.backbone.norm.running_mean.clone()
    network(torch.randn(6, 1, 8, 8) + 5)
    assert torch.equal(network.backbone.norm.running_mean, before)
    network.eval()
    assert not network.train().backbone.training


def test_random_weights_can_be_asked_for(timm):
    Pretrained((1, 8, 8), 2, weights=False)
    assert timm.made[0][1]["pretrained"] is False


def test_a_sweeps_check_downloads_nothing(timm):
    with torch.device("meta"):
        network = Pretrained((1, 8, 8), 2)
    assert timm.made[0][1]["pretrained"] is False
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "model.name=resnet5: timm has no such network; did you mean resnet50?"),
        ("zzz", "model.name=zzz: timm has no such network; timm.list_models() lists them"),
        (
            "offline",
            "model.name=offline: cannot reach the server; write model.weights=false for random"
            " weights",
        ),
        ("vit_tiny", "model.name=vit_tiny: does not take images of 1x8x8: Input height"),
    ],
)
def test_what_timm_cannot_give_is_refused(timm, name, message):
    with pytest.raises(Refused) as caught:
        Pretrained((1, 8, 8), 2, name=name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        Refused,
        match=r"^model=pretrained: needs the package timm, [^\n]*; pip install -e"
        r" '\.\[pretrained\]'$",
    ):
        Pretrained((1, 8, 8), 2)
