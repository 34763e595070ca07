"""Initial weights from a seed of their own (`model.init_seed`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from focal_lab.data.classification.samplers import draw_from, drawing_apart
from focal_lab.tasks.optimizer import check_option


@contextmanager
def initial_weights(seed: int | None) -> Iterator[None]:
    """Draw what a network is initialised with from `seed`, and leave the process's random numbers alone.

    The weights are those of a run whose only seed, `seed_everything`, is this one. None draws them from the
    process's random numbers, which `seed_everything` has seeded.

    Raises:
        UserError: the seed is negative or too large.
    """
    if seed is None:
        yield
        return
    check_option("init_seed", seed, 0 <= seed < 2**32, "in [0, 2^32)")
    with drawing_apart():
        draw_from(seed)
        yield
