"""Digests of a test set, to check whether two results used the same images, labels and classes.

They are computed from names and labels, not pixels. Neither the location of the data, in folders or archives,
nor their order matters.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from os.path import commonprefix


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that they have in common: data may be moved."""
    # of characters, on purpose: a row of a table is called FILE#ROW
    start = commonprefix(paths).rfind("/") + 1  # noqa: RUF071
    return [path[start:] for path in paths]


def digests(images: Iterable[tuple[str, str]], classes: Sequence[str]) -> dict[str, str]:
    """Digests of a test set, by name.

    Args:
        images: name and labels of each image, in any order.
        classes: names of the classes, in the order of the network's outputs; may be empty.

    Returns:
        `images` of the names, `labels` of names and labels, and if there are any, `classes` of the classes in
        their order and `class_names` of the same in any order.
    """
    listed = sorted(images)
    found = {
        "images": _digest(name for name, _ in listed),
        "labels": _digest(part for image in listed for part in image),
    }
    if classes:
        found |= {"classes": _digest(classes), "class_names": _digest(sorted(classes))}
    return found


def _digest(parts: Iterable[str]) -> str:
    made = blake2b(digest_size=8)
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape")
        made.update(len(encoded).to_bytes(8, "little") + encoded)
    return made.hexdigest()
