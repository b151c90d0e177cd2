"""Images in the files of MNIST and its likes (IDX), from a folder, or the same images from OpenML.

Legend: N images, H height, W width.
"""

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from goldilocks.data.base import Table, TableData
from goldilocks.data.sources.openml import fetch
from goldilocks.errors import Refused

Name = Literal["mnist_784", "Fashion-MNIST"]

TEST_ROWS = 10_000  # the last of OpenML's copies
BYTES = 8  # the code of unsigned bytes in an IDX file
FASHION = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


class IdxImages(TableData):
    """Images of one channel. Where the test images are given beside the others,
    they are the test set.

    Args:
        name: Of the data set on OpenML, which is asked where there is no folder.
        root: The folder of the files, from the folder in which the command is given;
            null fetches them.
        options: See TableData.
    """

    def __init__(self, name: Name, root: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.root = name, root

    def load(self) -> Table:
        table = (
            fetch_images(self.name)
            if self.root is None
            else read_folder(Path(self.root).expanduser().absolute())
        )
        named = self.name == "Fashion-MNIST" and len(np.unique(table.target)) == len(FASHION)
        return table._replace(class_names=FASHION) if named else table


@lru_cache(maxsize=1)
def fetch_images(name: Name) -> Table:
    """70,000 images of 28 x 28 pixels from OpenML, of which the last 10,000 are the test set."""
    found = fetch(
        name, 1, " or write data.root=FOLDER of its IDX files, such as train-images-idx3-ubyte.gz"
    )
    label = found.feature_names.index("class")
    images = np.delete(found.data, label, axis=1).astype(np.uint8).reshape(-1, 1, 28, 28)
    return Table(
        images, found.data[:, label].astype(int), test_rows=np.arange(len(images))[-TEST_ROWS:]
    )


@lru_cache(maxsize=1)
def read_folder(root: Path) -> Table:
    """Reads the images of a folder, [N, 1, H, W].

    With the files of train and of t10k, the rows of t10k are the test set;
    those of one alone are all rows.
    """
    parts = [part for part in ("train", "t10k") if find(root, f"{part}-images", 3)]
    if not parts:
        raise Refused(
            f"data.root={root}: holds no images; train-images-idx3-ubyte or t10k-images-idx3-ubyte"
            " is expected,"
            " as it is or as .gz"
        )
    images, labels = [], []
    for part in parts:
        files = find(root, f"{part}-images", 3), find(root, f"{part}-labels", 1)
        if files[0] is None or files[1] is None:
            raise Refused(
                f"data.root={root}: {part}-labels-idx1-ubyte is missing beside its images"
            )
        images.append(read_idx(files[0], 3))
        labels.append(read_idx(files[1], 1))
        if len(images[-1]) != len(labels[-1]):
            raise Refused(
                f"data.root={root}: {part} has {len(images[-1])} images and {len(labels[-1])}"
                " labels"
            )
    if len({part.shape[1:] for part in images}) > 1:
        raise Refused(f"data.root={root}: the images of train and t10k differ in size")
    features = np.concatenate(images)[:, None]
    test_rows = np.arange(len(images[0]), len(features)) if len(parts) > 1 else None
    return Table(features, np.concatenate(labels), test_rows=test_rows)


def find(root: Path, stem: str, dimensions: int) -> Path | None:
    """A file of a folder, also by the name with a dot that some copies have."""
    names = [f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((root / name for name in names if (root / name).is_file()), None)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes: two zeros, the type's code, the number of dimensions,
    their sizes, the values.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"data.root={path.parent}: {path.name} cannot be read ({error})") from error
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, BYTES, dimensions)) or len(content) < start:
        raise Refused(
            f"data.root={path.parent}: {path.name} is not an IDX file of bytes in {dimensions}"
            " dimensions"
        )
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != np.prod(shape):
        raise Refused(
            f"data.root={path.parent}: {path.name} is cut short or too long for its sizes {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
