"""Arrays are read as NumPy reads them, and a damaged file is recognised."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from focal_lab.utils.npz import Npz

ARRAYS: dict[str, NDArray[Any]] = {
    "label": np.arange(9, dtype=np.uint8),
    "wide": np.arange(6.0).reshape(2, 3),
    "half": np.linspace(0, 1, 5).astype(np.float16),
    "count": np.array(7),
    "none": np.zeros(0, np.int32),
    "yes": np.array([True, False]),
    "word": np.array("text"),
    "by column": np.asfortranarray(np.arange(6).reshape(2, 3)),
}


def as_bytes(save: Any = np.savez, **arrays: Any) -> bytes:
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_what_numpy_reads(save: Any) -> None:
    found = Npz(as_bytes(save, **ARRAYS))
    assert list(found) == list(ARRAYS)
    assert len(found) == len(ARRAYS)
    assert "label" in found
    assert "other" not in found
    for name, wanted in ARRAYS.items():
        assert found[name].dtype == wanted.dtype, name
        assert found[name].shape == wanted.shape, name
        np.testing.assert_array_equal(found[name], wanted)
    with pytest.raises(KeyError):
        found["other"]


def test_pickled_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        _ = Npz(as_bytes(a=np.array([{}], object)))["a"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_anywhere_is_damaged(save: Any) -> None:
    whole = as_bytes(save, a=np.arange(100), b=np.arange(3))
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="readable"):
            Npz(whole[:length])


def test_no_changed_byte_of_an_array_is_read() -> None:
    whole = as_bytes(a=np.arange(20, dtype=np.int16), b=np.arange(3))
    start = whole.index(b"\x93NUMPY")
    for place in range(start, start + 128 + 40):
        changed = whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :]
        with pytest.raises(ValueError, match=r"damaged|readable"):
            _ = Npz(changed)["a"]


def test_random_damage_raises_nothing_else() -> None:
    whole, rng = as_bytes(a=np.arange(20, dtype=np.int16), b=np.arange(3)), np.random.default_rng(0)
    for _ in range(2000):
        changed = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            changed[place] = rng.integers(256)
        try:
            found = Npz(bytes(changed))
            for name in found:
                _ = found[name]
        except ValueError:
            continue


def test_what_is_no_archive_is_refused() -> None:
    array = io.BytesIO()
    np.save(array, np.arange(3))
    for content in (b"", b"PK", b"\x00" * 100, array.getvalue()):
        with pytest.raises(ValueError, match="readable"):
            Npz(content)
