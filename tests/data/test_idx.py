import gzip

import numpy as np
import pytest
import torch

from conftest import ROOT
from fitting import ready
from goldilocks.data.sources.idx_images import FASHION, IdxImages, read_folder
from goldilocks.errors import Refused

SHARED = ROOT.parent / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def nothing_remembered():
    read_folder.cache_clear()
    yield
    read_folder.cache_clear()


def idx(values):
    """The bytes of an IDX file: two zeros, 8 for unsigned bytes, the number of dimensions,
    their sizes, the values.
    """
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def draw(rows, seed=0, size=(6, 5)):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, size=(rows, *size)), np.arange(rows) % 10


def write(folder, part, images, labels, end=".gz", mark="-"):
    for stem, values in ((f"images{mark}idx3", images), (f"labels{mark}idx1", labels)):
        content = idx(values)
        path = folder / f"{part}-{stem}-ubyte{end}"
        path.write_bytes(gzip.compress(content) if end else content)


@pytest.mark.parametrize(("end", "mark"), [(".gz", "-"), ("", "-"), ("", ".")])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_the_files_of_one_part_are_all_rows(part, end, mark, tmp_path):
    images, labels = draw(100)
    write(tmp_path, part, images, labels, end, mark)
    table = read_folder(tmp_path)
    assert table.features.dtype == np.uint8
    assert np.array_equal(table.features, images[:, None])
    assert np.array_equal(table.target, labels)
    data = ready(IdxImages("mnist_784", str(tmp_path), val_fraction=0.2, test_fraction=0.2))
    assert data.spec.num_rows == {"train": 60, "val": 20, "test": 20}
    assert (data.spec.task, data.spec.input_shape, data.spec.num_outputs) == (
        "multiclass",
        (1, 6, 5),
        10,
    )
    assert data.spec.class_names == tuple("0123456789")


@pytest.mark.parametrize("test_fraction", [0.0, 0.4])
def test_with_both_parts_the_t10k_rows_are_the_test_set(test_fraction, tmp_path):
    write(tmp_path, "train", *draw(100))
    images, labels = draw(30, seed=1)
    write(tmp_path, "t10k", images, labels)
    options = {"scaling": "none", "val_fraction": 0.2, "test_fraction": test_fraction}
    data = ready(IdxImages("mnist_784", str(tmp_path), **options))
    assert data.spec.num_rows == {"train": 74, "val": 26, "test": 30}
    x, y = data.tensors["test"]
    assert torch.equal(x, torch.from_numpy(images[:, None]).float())
    assert torch.equal(y, torch.from_numpy(labels))


def test_pixels_have_one_scale(tmp_path):
    images, labels = draw(100)
    write(tmp_path, "train", images, labels)
    data = ready(IdxImages("mnist_784", str(tmp_path)))
    x = data.tensors["train"][0].double()
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert [tensor.shape for tensor in data.scaler.values()] == [(1,), (1,)]


def test_the_folder_is_from_where_the_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    write(tmp_path / "here", "t10k", *draw(60))
    monkeypatch.chdir(tmp_path)
    assert len(IdxImages("mnist_784", "here").load().features) == 60
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(IdxImages("mnist_784", "~/here").load().features) == 60
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(Refused, match=r"here.here: holds no images"):
        IdxImages("mnist_784", "here").load()


def test_clothes_have_names(tmp_path):
    write(tmp_path, "train", *draw(100))
    assert ready(IdxImages("Fashion-MNIST", str(tmp_path))).spec.class_names == FASHION
    images, labels = draw(100)
    read_folder.cache_clear()
    write(tmp_path, "train", images, labels % 3)
    assert ready(IdxImages("Fashion-MNIST", str(tmp_path))).spec.class_names == ("0", "1", "2")


@pytest.mark.usefixtures("openml_stand_in")
@pytest.mark.parametrize("name", ["mnist_784", "Fashion-MNIST"])
def test_without_a_folder_the_images_are_openmls(name):
    data = ready(IdxImages(name, val_fraction=0.2, scaling="none"))
    assert data.spec.num_rows == {"train": 180, "val": 60, "test": 60}
    assert data.spec.input_shape == (1, 28, 28)
    assert data.load().features.dtype == np.uint8
    assert torch.equal(data.tensors["test"][1], torch.arange(240, 300) % 10)


# --- what is refused ------------------------------------------------------------------------------


def broken(tmp_path, change):
    """A folder whose images have been changed."""
    images, labels = draw(60)
    write(tmp_path, "t10k", images, labels)
    change(
        tmp_path / "t10k-images-idx3-ubyte.gz",
        tmp_path / "t10k-labels-idx1-ubyte.gz",
        images,
        labels,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda i, t, x, y: i.unlink(),
            "holds no images; train-images-idx3-ubyte or t10k-images-idx3-ubyte",
        ),
        (lambda i, t, x, y: t.unlink(), "t10k-labels-idx1-ubyte is missing beside its images"),
        (
            lambda i, t, x, y: i.write_bytes(b"not gzip"),
            r"t10k-images-idx3-ubyte.gz cannot be read \(",
        ),
        (
            lambda i, t, x, y: i.write_bytes(i.read_bytes()[:-30]),
            r"t10k-images-idx3-ubyte.gz cannot be read \(",
        ),
        (
            lambda i, t, x, y: i.write_bytes(gzip.compress(idx(x)[:-1])),
            r"is cut short or too long for its sizes",
        ),
        (
            lambda i, t, x, y: i.write_bytes(gzip.compress(idx(x)[:9])),
            r"is not an IDX file of bytes in 3 dimensions",
        ),
        (
            lambda i, t, x, y: i.write_bytes(gzip.compress(idx(y))),
            r"is not an IDX file of bytes in 3 dimensions",
        ),
        (
            lambda i, t, x, y: t.write_bytes(gzip.compress(idx(y[:-1]))),
            "t10k has 60 images and 59 labels",
        ),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(change, said, tmp_path):
    broken(tmp_path, change)
    with pytest.raises(Refused, match=said) as refusal:
        IdxImages("mnist_784", str(tmp_path)).load()
    assert str(refusal.value).startswith(f"data.root={tmp_path}: ")
    assert "\n" not in str(refusal.value)


def test_parts_of_different_sizes_are_refused(tmp_path):
    write(tmp_path, "train", *draw(50))
    write(tmp_path, "t10k", *draw(50, size=(6, 6)))
    with pytest.raises(Refused, match="the images of train and t10k differ in size"):
        IdxImages("mnist_784", str(tmp_path)).load()


# --- the real files -------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_the_real_test_images_of_mnist():
    """The published counts of its test set."""
    table = read_folder(SHARED)
    assert table.features.shape == (10_000, 1, 28, 28)
    assert np.bincount(table.target).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert table.target[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
