"""With the responses of openml.org that scikit-learn keeps for its own tests:
nothing touches the network.
"""

from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import sklearn.datasets._openml as downloader
from scipy.sparse import csr_array
from sklearn.datasets import load_iris
from sklearn.datasets.tests.test_openml import _monkey_patch_webbased_functions

from goldilocks.config.build import build
from goldilocks.data.base import TableData
from goldilocks.data.sources import openml
from goldilocks.data.sources.openml import OpenML, load_openml, one_hot
from goldilocks.errors import Refused


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    load_openml.cache_clear()
    yield
    load_openml.cache_clear()


@pytest.fixture
def stored(monkeypatch):
    """Answers as openml.org does, with the stored table of this number."""
    return lambda number: _monkey_patch_webbased_functions(monkeypatch, number, True)


def test_a_table_of_numbers(stored):
    stored(61)
    table = load_openml("iris", 1)
    bunch = load_iris()
    assert table.feature_names == ("sepallength", "sepalwidth", "petallength", "petalwidth")
    assert table.target_names == ("class",)
    assert table.features.shape == (150, 4)
    assert (
        np.count_nonzero(table.features != bunch.data) <= 3
    )  # two rows of the copies are known to differ
    assert table.target.tolist() == [f"Iris-{bunch.target_names[index]}" for index in bunch.target]
    data = OpenML("iris", 1)
    data.setup()
    assert (data.spec.task, data.spec.input_shape, data.spec.num_outputs) == ("multiclass", (4,), 3)
    assert data.spec.class_names == ("Iris-setosa", "Iris-versicolor", "Iris-virginica")


def test_categories_are_one_column_each(stored):
    stored(561)
    table = load_openml("cpu", 1)
    vendors = [name for name in table.feature_names if name.startswith("vendor=")]
    assert len(vendors) == 30
    assert vendors[:2] == ["vendor=adviser", "vendor=amdahl"]
    assert table.feature_names[30:] == ("MYCT", "MMIN", "MMAX", "CACH", "CHMIN", "CHMAX")
    hot = table.features[:, :30]
    assert set(hot.flat) == {0.0, 1.0}
    assert (hot.sum(1) == 1).all()
    assert table.target[:3].tolist() == [[199.0], [253.0], [253.0]]
    data = OpenML("cpu", 1)
    data.setup()
    assert (data.spec.task, data.spec.target_names) == ("regression", ("class",))


def test_a_missing_category_is_all_zeros():
    values = np.array([[0.0, 5.0], [np.nan, 6.0], [2.0, np.nan]])
    features, names = one_hot(values, ["kind", "size"], {"kind": ["a", "b", "c"]}, without=())
    assert names == ("kind=a", "kind=b", "kind=c", "size")
    assert np.array_equal(features, [[1, 0, 0, 5], [0, 0, 0, 6], [0, 0, 1, np.nan]], equal_nan=True)


def fetched(data, columns, categories=None, target=None):
    """In place of `fetch`: these columns of a table."""
    details = {"default_target_attribute": target, "version": "1"}
    found = SimpleNamespace(
        data=data, feature_names=columns, categories=categories or {}, details=details
    )
    return lambda *arguments: found


def test_missing_numbers_are_refused_by_name(monkeypatch):
    values = np.column_stack([np.arange(30.0), np.arange(30) % 2])
    values[7, 0] = np.nan
    monkeypatch.setattr(
        openml, "fetch", fetched(values, ["size", "ill"], {"ill": ["no", "yes"]}, "ill")
    )
    with pytest.raises(
        Refused, match=r"^data: feature size holds 1 missing or infinite values; fill or drop them$"
    ):
        OpenML("anything").setup()


def test_rows_without_a_target_are_refused(monkeypatch):
    values = np.column_stack([np.arange(30.0), np.arange(30) % 2])
    values[[7, 9], 1] = np.nan
    monkeypatch.setattr(
        openml, "fetch", fetched(values, ["size", "ill"], {"ill": ["no", "yes"]}, "ill")
    )
    with pytest.raises(
        Refused, match=r"^data.target=ill: 2 rows have none; choose another column$"
    ):
        OpenML("anything").setup()


def test_a_table_without_a_target_asks_for_one(monkeypatch):
    monkeypatch.setattr(openml, "fetch", fetched(np.ones((9, 2)), ["size", "weight"]))
    with pytest.raises(
        Refused,
        match=r"^data.name=bears: OpenML names no target; write data.target=COLUMN: size, w",
    ):
        OpenML("bears").setup()


def test_a_sparse_table_is_read(monkeypatch):
    values = np.eye(6)
    monkeypatch.setattr(openml, "fetch", fetched(csr_array(values), list("abcdef"), target="f"))
    table = load_openml("sparse")
    assert np.array_equal(table.features, values[:, :5])
    assert np.array_equal(table.target, values[:, 5:])


def test_the_target_can_be_chosen(stored):
    stored(561)
    words = load_openml("cpu", 1, ("vendor",))
    assert words.target[:3].tolist() == ["adviser", "amdahl", "amdahl"]
    assert "class" in words.feature_names
    assert not any(name.startswith("vendor") for name in words.feature_names)
    both = load_openml("cpu", 1, ("class", "MYCT"))
    assert both.target[:2].tolist() == [[199.0, 125.0], [253.0, 29.0]]
    data = OpenML("cpu", 1, target=["class", "MYCT"])
    data.setup()
    assert (data.spec.task, data.spec.num_outputs) == ("regression", 2)


@pytest.mark.parametrize(
    ("number", "name", "version", "target", "said"),
    [
        (
            561,
            "cpu",
            1,
            ("clas",),
            r"^data.target=clas: cpu has no such column; did you mean class\?",
        ),
        (
            561,
            "cpu",
            1,
            ("class", "vendor"),
            r"^data.target=vendor: holds words, and several targets must be numbers",
        ),
        (
            40675,
            "glass2",
            None,
            (),
            r"^data.name=glass2: No active dataset glass2 found. openml.org lists the names",
        ),
    ],
)
def test_what_a_table_does_not_have_is_refused(number, name, version, target, said, stored):
    stored(number)
    with pytest.raises(Refused, match=said):
        load_openml(name, version, target)


@pytest.mark.parametrize("version", [None, 1])
def test_a_version_that_was_chosen_for_the_user_is_told(version, stored, capsys):
    stored(61)
    load_openml("iris", version)
    told = capsys.readouterr().err
    expected = (
        "warning: data.name=iris: OpenML has several versions, and this is version 1; write"
        " data.version=1 to keep it"
    )
    assert told.strip() == ("" if version else expected)


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        HTTPError("https://www.openml.org", 503, "busy", None, None),
        TimeoutError("too slow"),
    ],
)
def test_without_a_network_one_line_says_so(error, monkeypatch, tmp_path):
    tried = []

    def unreachable(*arguments, **options):
        tried.append(arguments)
        raise error

    monkeypatch.setattr(downloader, "urlopen", unreachable)
    monkeypatch.setattr(downloader.time, "sleep", lambda seconds: None)
    with pytest.raises(Refused) as refusal:
        OpenML("adult").setup()
    assert len(tried) >= 4
    line = str(refusal.value)
    assert line.startswith(
        f"data.name=adult: is not in scikit-learn's cache, {tmp_path}, and openml.org could not be"
    )
    assert str(error) in line
    assert "\n" not in line


def test_a_table_that_was_fetched_needs_no_network(stored, monkeypatch):
    stored(61)
    first = load_openml("iris", 1)
    load_openml.cache_clear()

    def unreachable(*arguments, **options):
        raise AssertionError("asked the network")

    monkeypatch.setattr(downloader, "urlopen", unreachable)
    again = load_openml("iris", 1)
    assert again is not first
    assert np.array_equal(again.features, first.features)


def test_trials_share_a_table(stored):
    stored(61)
    assert OpenML("iris", 1).load() is OpenML("iris", 1, batch_size=8).load()


@pytest.mark.parametrize(
    ("key", "value"), [("version", 0), ("version", "new"), ("target", 3), ("name", None)]
)
def test_options_are_checked(key, value):
    node = {"_target_": "goldilocks.data.sources.openml.OpenML", "name": "adult", key: value}
    with pytest.raises(Refused, match=rf"^data\.{key}="):
        build(node, TableData, "data")
