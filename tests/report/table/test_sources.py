import numpy as np
import pytest

from focal_lab.report.table.test_units import Sources


@pytest.mark.parametrize("counts", [[4] * 50, [1, 7, 2, 2, 30], [1] * 9, [12]])
def test_sources_are_summed_whatever_their_sizes_and_the_order_of_images(counts: list[int]) -> None:
    draw = np.random.default_rng(len(counts))
    numbers = draw.permutation(1000)[: len(counts)]
    clusters = draw.permutation(np.repeat(numbers, counts))
    values_SI = draw.normal(size=(3, len(clusters))).astype(np.float32)
    sources = Sources(clusters)
    scale = len(counts) / len(clusters)
    in_order = np.sort(numbers)
    expected = [[row[clusters == number].sum() * scale for number in in_order] for row in values_SI]
    sizes = [(clusters == number).sum() * scale for number in in_order]
    found = sources.sums(values_SI)
    if len(counts) == len(clusters):  # images in their own order
        assert (found == values_SI).all()
    else:
        assert found == pytest.approx(np.array(expected), rel=1e-4, abs=1e-5)
    assert sources.sizes_U == pytest.approx(np.array(sizes))
    assert found.mean(axis=1) == pytest.approx(values_SI.mean(axis=1), rel=1e-4, abs=1e-5)
