"""Tables that tests write to a file."""

import numpy as np

from conftest import ROOT

SHARED = ROOT.parent / "shared" / "data" / "tables"


def cars(rows=90, seed=0):
    """Lines of a CSV file: numbers, two values, few and many categories, dates, gaps;
    the price follows from them.
    """
    random = np.random.default_rng(seed)
    makes, colours = ["audi", "fiat", "ford", "seat"], ["red", "green", "blue"]
    lines = ["id,size,age,make,fuel,colour,sold,price"]
    for row in range(rows):
        size, age, make = random.normal(), random.integers(0, 20), makes[random.integers(4)]
        price = 20 + 3 * size - 0.5 * age + 4 * makes.index(make) + 0.1 * random.normal()
        words = [
            row + 1,
            f"{size:.3f}",
            "" if row % 9 == 4 else age,
            make,
            ["gas", "diesel"][row % 2],
        ]
        sold = f"2024-{row % 12 + 1:02}-{row % 27 + 1:02}"
        lines.append(",".join(map(str, [*words, colours[row % 3], sold, f"{price:.3f}"])))
    return lines


def write(path, lines, encoding="utf-8", end="\n"):
    """Writes lines to a file; returns its path."""
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return str(path)
