"""Hashes of values with common parts are those of the whole values."""

from typing import Any

from focal_lab.sweep.identity.run_ids import hash_of, hashes_of


def test_hashes_of_values_with_common_parts_are_those_of_the_whole_values() -> None:
    common: dict[str, Any] = {"task": "a", "zoo": {"b": [1, 1.0, None], "ä": 'quoted "'}, "model": {}}
    own: list[dict[str, Any]] = [{"seed": 0}, {"seed": 1, "needs": "0a"}, {"task": "b"}]
    assert list(hashes_of(common, own)) == [hash_of(common | one) for one in own]
