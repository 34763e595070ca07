"""Rare collections of garbage end with the command."""

import gc
from contextlib import suppress

from focal_lab.utils.garbage import rare_collection


def test_collections_are_rare_until_the_block_ends_even_in_an_error() -> None:
    usual = inside = gc.get_threshold()
    with suppress(KeyError), rare_collection():
        inside = gc.get_threshold()
        raise KeyError
    assert inside[0] > 100 * usual[0]
    assert gc.get_threshold() == usual
