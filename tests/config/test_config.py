import re
import sys
import tomllib
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import nn
from torch.optim import Optimizer

from conftest import ROOT
from goldilocks.config.build import PACKAGES, build, check_arguments, find_class, import_path
from goldilocks.config.signatures import expected
from goldilocks.data.base import TableData
from goldilocks.errors import EXTRAS, Refused
from goldilocks.models.mlp import MLP

HERE = __name__.partition(".")[0]  # a package that is not allowed until it is given
sys_alias = sys  # an allowed package may hold a module that is not


class Widget(nn.Module):
    """A constructor with an annotation of every kind."""

    def __init__(
        self,
        size: Annotated[int, Field(ge=1)],
        rate: float = 0.1,
        width: int | list[int] = 3,
        pair: tuple[float, float] = (0.0, 1.0),
        mode: Literal["fast", "exact"] = "fast",
        flag: bool = False,
        label: str | None = None,
        inner: nn.Module | None = None,
        untyped=None,
    ):
        super().__init__()
        self.given = {
            "size": size,
            "rate": rate,
            "width": width,
            "pair": pair,
            "mode": mode,
            "flag": flag,
        }
        self.label, self.inner, self.untyped = label, inner, untyped


class Base:
    def __init__(self, size: Annotated[int, Field(ge=1)], colour: str = "red"):
        self.size, self.colour = size, colour


class Child(Base):
    def __init__(self, name: str, **options: Any):
        super().__init__(**options)
        self.name = name


class Closing(Base):
    """Passes on what the class above needs, and gives it a default of its own."""

    def __init__(self, size: int = 7, **options: Any):
        super().__init__(size, **{"colour": "green", **options})


class Demanding(Base):
    def __init__(self, size: int, shape: int, **options: Any):
        super().__init__(size=size, **options)
        self.shape = shape


class Square(Demanding):
    def __init__(self, size: int, **options: Any):
        super().__init__(size=size, shape=size, **options)


class Open:
    def __init__(self, **options: Any):
        self.options = options


class HalfAnnotated:
    def __init__(self, size: int, other: "NotImported" = None):  # noqa: F821
        self.size = size


def refusal(function, *args, **kwargs):
    """The message of the refusal, which must be one line."""
    with pytest.raises(Refused) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def make(kind, base=object, where="widget", **arguments):
    path = kind if isinstance(kind, str) else f"{__name__}.{kind.__name__}"
    return build({"_target_": path, **arguments}, base, where, packages=[HERE])


# --- what may be built ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "torch.os.system",  # a function of a module that an allowed package imports
        "torch.os.PathLike",  # a class too
        "pytorch_lightning.os.getcwd",
        "goldilocks.runs.folder.subprocess.Popen",
        "goldilocks.runs.folder.subprocess.run",
        "goldilocks.config.build.importlib.import_module",
        "torch.load",
        "torch.hub.load",
        "torch.nn.init.normal_",
        "torch.nn",
        "builtins.eval",
        "builtins.dict",
        "os.system",
        "subprocess.Popen",
        f"{__name__}.sys_alias.exit",
    ],
)
def test_only_classes_defined_in_allowed_packages_are_built(path, tmp_path):
    """Any base would do here: what refuses is that these are no classes,
    or classes of another package.
    """
    proof = tmp_path / "ran"
    node = {"_target_": path, "command": f"touch {proof}", "args": ["touch", str(proof)]}
    message = refusal(build, node, object, "model", packages=[HERE])
    assert message.startswith(f"model._target_={path}: ")
    assert not proof.exists()


def test_a_class_of_another_package_is_built_once_its_package_is_allowed():
    node = {"_target_": f"{__name__}.Widget", "size": 2}
    message = refusal(build, node, nn.Module, "model")
    assert f"package {HERE} is not allowed" in message
    assert "packages" in message
    assert "conf/train.yaml" in message
    assert isinstance(build(node, nn.Module, "model", packages=[HERE]), Widget)


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("torch.optim.SGD", nn.Module),
        ("torch.nn.Linear", Optimizer),
        ("sklearn.pipeline.Pipeline", nn.Module),
    ],
)
def test_a_class_of_the_wrong_base_is_refused(path, base):
    message = refusal(build, {"_target_": path}, base, "model")
    assert (
        f"model._target_={path}: must be a subclass of {base.__module__}.{base.__name__}" in message
    )


def test_an_abstract_class_is_refused():
    assert "abstract" in refusal(
        build, {"_target_": "pytorch_lightning.loggers.Logger"}, Logger, "logger.mine"
    )


@pytest.mark.parametrize(
    "node", [None, "sgd", {}, {"lr": 0.1}, {"_target_": 3}, {"_target_": None}, ["sgd"]]
)
def test_a_node_without_a_target_is_refused(node):
    assert "_target_" in refusal(find_class, node, Optimizer, "optimizer")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("torch.optim.NAdm", "did you mean NAdam?"),
        ("torch.nope.Thing", "nope is not in torch"),
        ("goldilocks.models.mlp.MPL", "did you mean MLP?"),
        ("torch", "no such module"),
        ("torch.", "not in torch"),
    ],
)
def test_a_path_to_nothing_is_refused_with_the_near_miss(path, hint):
    message = refusal(import_path, path, "optimizer")
    assert message.startswith(f"optimizer._target_={path}: ")
    assert hint in message


def test_a_module_whose_own_import_is_missing_names_that_package(tmp_path, monkeypatch):
    (tmp_path / "my_house_of_models.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(import_path, "my_house_of_models.Net", "model")
    assert "needs the package a_package_that_nobody_has" in message


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_a_package_that_is_not_installed_names_its_extra(package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    (tmp_path / "my_house_of_extras.py").write_text(f"from {package} import Something\n")
    monkeypatch.syspath_prepend(tmp_path)
    needs = f"needs the package {package}, which is not installed; pip install -e '.[{extra}]'"
    for path in (f"{package}.Thing", "my_house_of_extras.Thing"):
        assert refusal(import_path, path, "model") == f"model._target_={path}: {needs}"


def test_a_constructor_that_lacks_a_package_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    needs = (
        "needs the package pytorch_optimizer, which is not installed; pip install -e"
        " '.[optimizers]'"
    )
    assert refusal(make, Importer).endswith(f".Importer: {needs}")


class Importer:
    def __init__(self):
        import pytorch_optimizer  # noqa: F401


def test_the_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        re.match(r"[\w-]+", requirement)[0].replace("-", "_"): extra
        for extra, requirements in project["optional-dependencies"].items()
        for requirement in requirements
        if extra != "dev"
    }
    assert extras == EXTRAS
    assert {"pytorch_optimizer", "timm"} <= EXTRAS.keys() & set(
        PACKAGES
    )  # the others have no classes for options


class OwnError(Exception):
    """A library's own kind of exception."""


@pytest.mark.parametrize(
    ("error", "refused"), [(OwnError, True), (ValueError, True), (KeyError, False)]
)
def test_what_a_constructor_raises_is_refused_unless_it_looks_like_a_mistake_in_the_code(
    error, refused
):
    class Angry:
        def __init__(self, size: int):
            raise error("size must be odd")

    Angry.__module__, Angry.__qualname__ = HERE, "Angry"
    globals()["Angry"] = Angry
    if refused:
        assert refusal(make, Angry, size=2) == "widget: size must be odd"
    else:
        with pytest.raises(error):
            make(Angry, size=2)


def test_a_nested_target_is_built_under_the_same_rules():
    built = make(Widget, size=1, inner={"_target_": "torch.nn.LeakyReLU", "negative_slope": 0.2})
    assert isinstance(built.inner, nn.LeakyReLU)
    assert built.inner.negative_slope == 0.2
    for path in ("torch.optim.SGD", "torch.os.system", "os.system", "torch.load"):
        message = refusal(make, Widget, size=1, inner={"_target_": path, "command": "true"})
        assert message.startswith(f"widget.inner._target_={path}: ")
    message = refusal(
        make, Widget, size=1, inner={"_target_": "torch.nn.LeakyReLU", "negative_slop": 0.2}
    )
    assert (
        message
        == "widget.inner.negative_slop: LeakyReLU has no such key; did you mean negative_slope?"
    )


@pytest.mark.parametrize("key", ["rate", "label", "width", "untyped"])
def test_a_nested_target_where_none_is_meant_is_refused(key):
    assert f"widget.{key}" in refusal(make, Widget, size=1, **{key: {"_target_": "torch.nn.ReLU"}})


def test_a_target_among_open_keywords_stays_data():
    options = {
        "hook": {"_target_": "os.system", "command": "true"},
        "list": [{"_target_": "torch.nn.ReLU"}],
    }
    assert make(Open, **options).options == options


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "written", "said"),
    [
        ("size", 0, "0", "greater than or equal to 1"),
        ("size", -3, "-3", "greater than or equal to 1"),
        ("size", 1.5, "1.5", "integer"),
        ("size", "abc", "abc", "a whole number is expected"),
        ("size", None, "null", "a whole number is expected"),
        ("size", [1, 2], "[1,2]", "a whole number is expected"),
        ("rate", "fast", "fast", "a number is expected"),
        ("rate", None, "null", "a number is expected"),
        ("width", "abc", "abc", "a whole number or a list of whole numbers is expected"),
        ("width", ["a", 2], "[a,2]", "a whole number or a list of whole numbers is expected"),
        ("pair", [0.9], "[0.9]", "2"),
        ("pair", [0.9, 0.99, 0.999], "[0.9,0.99,0.999]", "2"),
        ("pair", 0.9, "0.9", "a list of"),
        ("mode", "slow", "slow", "one of fast, exact is expected"),
        ("flag", 2, "2", "true or false"),
        ("flag", "perhaps", "perhaps", "true or false"),
        ("label", 3, "3", "a word or null is expected"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(key, value, written, said):
    message = refusal(make, Widget, **{"size": 1, key: value})
    start = f"widget.{key}={written}: "
    assert message.startswith(start)
    assert said in message.removeprefix(start)
    assert "Field required" not in message  # a phrase of pydantic's, meaningless in a configuration


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", True), ("rate", False), ("width", True), ("width", [True, 3]), ("pair", [True, 0.9])],
)
def test_true_and_false_are_no_numbers(key, value):
    assert refusal(make, Widget, **{"size": 1, key: value}).startswith(f"widget.{key}=")


def test_right_values_arrive_converted():
    built = make(
        Widget, size=2, rate=1, width=[4, 2], pair=[0, 1], mode="exact", flag=True, untyped=True
    )
    assert built.given == {
        "size": 2,
        "rate": 1.0,
        "width": [4, 2],
        "pair": (0.0, 1.0),
        "mode": "exact",
        "flag": True,
    }
    assert isinstance(built.given["rate"], float)
    assert isinstance(built.given["pair"], tuple)
    assert built.untyped is True
    assert make(Widget, size=2, label=None).label is None


def test_a_list_becomes_a_tuple_for_a_library_class():
    optimizer = build(
        {"_target_": "torch.optim.Adam", "betas": [0.8, 0.9]},
        Optimizer,
        "optimizer",
        params=[torch.ones(1)],
    )
    assert optimizer.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sze", "did you mean size?"),
        ("Size", "did you mean size?"),
        ("zzz", "write one of: flag, inner"),
        ("_partial_", "no such key"),
        ("_args_", "no such key"),
    ],
)
def test_an_unknown_key_is_refused_with_the_near_miss(key, said):
    message = refusal(make, Widget, **{"size": 1, key: 1})
    assert message.startswith(f"widget.{key}: Widget has no such key; ")
    assert said in message


def test_open_keywords_are_passed_on_but_not_hydras_own():
    assert make(Open, anything=[1, "a"]).options == {"anything": [1, "a"]}
    assert refusal(make, Open, _partial_=True).startswith("widget._partial_: ")


def test_a_missing_key_is_refused():
    assert refusal(make, Widget, rate=0.5) == "widget.size: is missing; Widget needs it"


def test_at_the_top_keys_have_no_prefix():
    assert refusal(check_arguments, Widget, {"size": 0}, "").startswith("size=0: ")
    assert refusal(check_arguments, Widget, {}, "").startswith("size: is missing")


def test_one_unreadable_annotation_leaves_the_others_checked():
    assert refusal(make, HalfAnnotated, size="abc").startswith("widget.size=abc: ")
    assert make(HalfAnnotated, size=3, other=object).size == 3


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | list[int], "a whole number or a list of whole numbers"),
        (None | float, "a number or null"),
        (Annotated[int, Field(ge=1)] | None, "a whole number or null"),
        (Literal["a", 2], "one of a, 2"),
        (float | torch.Tensor, "a number"),  # a tensor cannot be written
        (list[str] | None, "a list of words or null"),
    ],
)
def test_annotations_in_words(annotation, words):
    assert expected(annotation) == words


# --- live values ----------------------------------------------------------------------------------


def test_live_values_are_always_passed_and_never_configured():
    node = {"_target_": f"{__name__}.Widget", "rate": 0.5}
    built = build(node, nn.Module, "widget", packages=[HERE], size=7)
    assert (built.given["size"], built.given["rate"]) == (7, 0.5)
    message = refusal(build, {**node, "size": 3}, nn.Module, "widget", packages=[HERE], size=7)
    assert message.startswith("widget.size: ")
    assert "leave it out" in message


def test_offered_values_are_taken_where_they_fit_and_are_not_configured():
    node = {"_target_": f"{__name__}.Widget"}
    offered = {"size": 5, "rate": 0.7, "unheard_of": 1}
    built = build(node, nn.Module, "widget", packages=[HERE], offered=offered)
    assert (built.given["size"], built.given["rate"]) == (5, 0.7)
    built = build({**node, "rate": 0.2}, nn.Module, "widget", packages=[HERE], offered=offered)
    assert (built.given["size"], built.given["rate"]) == (5, 0.2)


def test_a_class_that_does_not_take_the_live_values_is_refused():
    """A user who names torch.nn.ReLU as the model is told so in one line."""
    node = {"_target_": "torch.nn.ReLU"}
    assert refusal(build, node, nn.Module, "model", input_shape=(2,), num_outputs=1).startswith(
        "model"
    )


def test_a_class_of_lightning_passes_what_the_class_above_it_needs(tmp_path):
    """Lightning's own TensorBoardLogger could not be built: `root_dir` was asked for."""
    logger = make(TensorBoardLogger, save_dir=str(tmp_path))
    assert logger.root_dir.startswith(str(tmp_path))


def test_options_stand_for_the_keywords_of_the_class_above():
    built = make(Child, name="a", size=2)
    assert (built.name, built.size, built.colour) == ("a", 2, "red")
    assert refusal(make, Child, name="a", size=0).startswith("widget.size=0: ")
    assert refusal(make, Child, name="a", size=1, color="blue").endswith("did you mean colour?")
    assert refusal(make, Child, name="a") == "widget.size: is missing; Child needs it"


def test_a_constructor_that_repeats_what_the_class_above_needs_passes_the_rest_itself():
    assert (make(Closing).size, make(Closing).colour, make(Closing, colour="red").colour) == (
        7,
        "green",
        "red",
    )
    assert (make(Square, size=2).shape, make(Square, size=2, colour="blue").colour) == (2, "blue")
    assert refusal(make, Square) == "widget.size: is missing; Square needs it"
    assert refusal(make, Square, size=1, color="blue").endswith("did you mean colour?")
    assert refusal(make, Demanding, size=1) == "widget.shape: is missing; Demanding needs it"


def test_options_of_a_data_source_are_checked_against_table_data():
    node = {"_target_": "goldilocks.data.sources.sklearn_sets.EmbeddedData", "name": "iris"}
    assert build({**node, "batch_size": 7}, TableData, "data").batch_size == 7
    assert refusal(build, {**node, "batch_size": 0}, TableData, "data").startswith(
        "data.batch_size=0: "
    )
    assert refusal(build, {**node, "batchsize": 7}, TableData, "data").endswith(
        "did you mean batch_size?"
    )
    assert refusal(build, {**node, "name": "irish"}, TableData, "data").startswith(
        "data.name=irish: "
    )


# --- what the constructors say --------------------------------------------------------------------


def test_a_value_error_of_a_library_becomes_a_refusal():
    node = {"_target_": "torch.optim.NAdam", "lr": -1.0}
    message = refusal(build, node, Optimizer, "optimizer", params=[torch.ones(1)])
    assert message == "optimizer.lr=-1.0: Invalid learning rate: -1.0"


def test_a_refusal_of_our_own_passes_unchanged():
    node = {"_target_": "goldilocks.models.mlp.MLP", "depth": 2, "width": [4, 4, 4]}
    ours = refusal(MLP, (2,), 1, depth=2, width=[4, 4, 4])
    assert refusal(build, node, nn.Module, "model", input_shape=(2,), num_outputs=1) == ours


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_no_line_of_an_option_is_wider_than_the_code(path):
    wide = [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 100]
    assert not wide, wide
