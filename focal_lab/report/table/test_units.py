"""A table's metrics image by image, for intervals over seeds and test images.

Shape suffixes: S seeds, U units (test images, or the sources that several of them share), C contrasts,
R rows.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focal_lab.report.statistics.crossed import Estimate, image_variance, image_variances, over_seeds
from focal_lab.report.table.records import Row
from focal_lab.sweep.run_folder.predictions import Units, read_metrics
from focal_lab.sweep.run_folder.result import CorruptRecordError, Result
from focal_lab.sweep.spec.columns import COLUMNS, Column

# Bytes of metrics that are kept for further comparisons.
_MOST_BYTES = 2**29
Terms = Sequence[tuple[float, int]]
_TestSet = tuple[int, int, bytes]


@dataclass(frozen=True)
class _Measured:
    """A metric of the runs of one row that were tested on the same images.

    Attributes:
        seeds: of the runs, in the order of `values`.
        values: sum of each unit's images, scaled so that its mean is the metric, (S, U).
        sizes: images of each unit over their mean number, (U,).
        test_set: number of images, checksum of their labels, and their sources.
    """

    seeds: list[int]
    values: NDArray[np.float32]
    sizes: NDArray[np.float32]
    test_set: _TestSet

    def of_seeds(self, seeds: list[int]) -> NDArray[np.float32]:
        """The values of some of the seeds."""
        if seeds == self.seeds:
            return self.values
        places = {seed: place for place, seed in enumerate(self.seeds)}
        return self.values[[places[seed] for seed in seeds]]


class Sources:
    """The units of a test set.

    Attributes:
        sizes_U: images of each unit over their mean number.
    """

    def __init__(self, clusters: NDArray[np.integer[Any]]) -> None:
        """Takes the source of each image, (I,)."""
        order = np.argsort(clusters, kind="stable")
        starts = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[0]] - 1))
        counts = np.diff(starts, append=len(order))
        self._scale = np.float32(len(starts) / len(order))
        self.sizes_U = (counts * (len(starts) / len(order))).astype(np.float32)
        self._starts: NDArray[np.intp] | None = starts
        if (counts == counts[0]).all():  # summed faster with the first images of all units in front
            order, self._starts = order.reshape(len(counts), -1).T.ravel(), None
        self._order = order

    def sums(self, values_SI: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sum of each unit's images, scaled so that the mean over units is that over images, (S, U)."""
        units = len(self.sizes_U)
        if units == len(self._order):
            return values_SI
        sorted_SI = values_SI.take(self._order, axis=1)
        if self._starts is None:
            sums_SU: NDArray[np.float32] = np.add.reduce(sorted_SI.reshape(len(values_SI), -1, units), axis=1)
        else:
            sums_SU = np.add.reduceat(sorted_SI, self._starts, axis=1)
        return sums_SU * self._scale


class TestUnits:
    """Estimates contrasts of rows, with the noise of the test images where runs have predictions.

    Attributes:
        without: IDs of finished runs without predictions, as far as they were asked for.
        damaged: message about each file that could not be used.
        mixed: indices of rows whose runs have predictions of different test sets, which are not used.
        unpaired: whether rows of different test sets were compared, so that each adds its own noise.
    """

    __test__ = False  # not a test, whatever pytest thinks

    def __init__(self, rows: Sequence[Row], results: Mapping[str, Result], out: Path) -> None:
        self._rows, self._results, self._out = rows, results, out
        self._kept: OrderedDict[tuple[int, str], _Measured | None] = OrderedDict()
        self._bytes = 0
        self._sources: dict[_TestSet, Sources] = {}
        self.without: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.mixed: set[int] = set()
        self.unpaired = False

    def estimate(
        self, terms: Terms, column: Column, constant: float = 0.0, most_seeds: int | None = None
    ) -> Estimate:
        """The weighted sum of rows plus a constant, over the seeds that all rows have.

        Args:
            terms: weight and index of each row.
            column: the metric.
            constant: in the metric's unit.
            most_seeds: only that many seeds, the first ones.
        """
        values = [(weight, self._rows[index].entries[column.key].values) for weight, index in terms]
        shared = set.intersection(*(set(seeds) for _, seeds in values)) if values else set()
        seeds = [seed for seed in self._in_order(terms) if seed in shared][:most_seeds]
        found = over_seeds(
            [fsum([constant, *(weight * of[seed] for weight, of in values)]) for seed in seeds]
        )
        if found.sd is None:
            return found
        variance, units = self._from_images(terms, column, seeds)
        return Estimate(found.n, found.mean, found.sd, found.seed_variance, variance, units)

    def estimates(
        self, weights_CR: NDArray[np.float64], indices: Sequence[int], column: Column
    ) -> list[Estimate]:
        """Several weighted sums of the same rows, faster than one by one, over the seeds that all rows have.

        Args:
            weights_CR: of each contrast and row.
            indices: of the rows.
            column: the metric.
        """
        terms = [[(float(weight), at) for weight, at in zip(row, indices, strict=True)] for row in weights_CR]
        seeds = [seed for seed in self._in_order(terms[0]) if self._have(seed, indices, column)]
        values_RS = np.array(
            [[self._rows[index].entries[column.key].values[seed] for seed in seeds] for index in indices]
        )
        found = [over_seeds(values) for values in (weights_CR @ values_RS).tolist()]
        if len(seeds) < 2:
            return found
        measured = [self._measured(index, column) for index in indices]
        known = [one for one in measured if one is not None]
        if len(known) < len(measured) or len({one.test_set for one in known}) != 1:
            return [self.estimate(one, column) for one in terms]
        common = set(seeds).intersection(*(one.seeds for one in known))
        tested = [seed for seed in seeds if seed in common]
        if len(tested) < 2:
            return found
        weights = weights_CR.astype(np.float32)
        of_rows = [one.of_seeds(tested) for one in known]
        of_seeds = (weights @ np.stack([row_SU[place] for row_SU in of_rows]) for place in range(len(tested)))
        sizes_U = known[0].sizes
        variances = image_variances(of_seeds, sizes_U).tolist()
        return [
            Estimate(one.n, one.mean, one.sd, one.seed_variance, variance, len(sizes_U))
            for one, variance in zip(found, variances, strict=True)
        ]

    def image_variance(self, indices: Sequence[int], column: Column) -> tuple[float, int]:
        """Variance of a metric from test images that changes all runs of some rows alike, and their units.

        Returns:
            0 and 0 if not all of the runs have predictions of the same test set.
        """
        known = [one for one in (self._measured(index, column) for index in indices) if one is not None]
        planned = sum(self._rows[index].entries[column.key].n for index in indices)
        if len({one.test_set for one in known}) != 1 or sum(len(one.seeds) for one in known) < planned:
            return 0.0, 0
        sizes_U = known[0].sizes
        return image_variance(np.concatenate([one.values for one in known]), sizes_U), len(sizes_U)

    def _have(self, seed: int, indices: Sequence[int], column: Column) -> bool:
        return all(seed in self._rows[index].entries[column.key].values for index in indices)

    def _in_order(self, terms: Terms) -> list[int]:
        """Seeds in the plan's order."""
        return list(dict.fromkeys(run.seed for _, index in terms for run in self._rows[index].runs))

    def _from_images(self, terms: Terms, column: Column, seeds: list[int]) -> tuple[float, int]:
        """Variance from test images, and the number of units; rows with other images add theirs.

        It does not depend on the number of seeds, so those with predictions suffice to estimate it.
        """
        groups: dict[_TestSet, list[tuple[float, _Measured]]] = {}
        for weight, index in terms:
            one = self._measured(index, column)
            if one is None:
                return 0.0, 0
            groups.setdefault(one.test_set, []).append((weight, one))
        tested = set(seeds).intersection(*(one.seeds for group in groups.values() for _, one in group))
        seeds = [seed for seed in seeds if seed in tested]
        if len(seeds) < 2:
            return 0.0, 0
        self.unpaired |= len(groups) > 1
        variance = 0.0
        for (weight, first), *others in groups.values():
            contrast_SU = np.float32(weight) * first.of_seeds(seeds)
            for weight, one in others:
                contrast_SU += np.float32(weight) * one.of_seeds(seeds)
            variance += image_variance(contrast_SU, first.sizes)
        return variance, min(len(group[0][1].sizes) for group in groups.values())

    def _measured(self, index: int, column: Column) -> _Measured | None:
        key = (index, column.key)
        if key not in self._kept:
            self._keep(index, self._read(index, column.task))
        self._kept.move_to_end(key)
        found = self._kept[key]
        while self._bytes > _MOST_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found

    def _keep(self, index: int, found: Mapping[str, _Measured | None]) -> None:
        for metric, one in found.items():
            self._bytes += _size(one) - _size(self._kept.pop((index, metric), None))
            self._kept[index, metric] = one

    def _read(self, index: int, task: str | None) -> dict[str, _Measured | None]:
        """A task's metrics; None if no run has predictions, or runs were tested on different images."""
        row = self._rows[index]
        metrics = [key for key in row.entries if COLUMNS[key].task == task]
        units: dict[str, dict[int, Units]] = {metric: {} for metric in metrics}
        for run in row.runs:
            result = self._results.get(run.run)
            if run.task != task or result is None or not run.counts:
                continue
            reported = {key: result.metrics[key] for key in metrics if key in result.metrics}
            try:
                found = read_metrics(f"{self._out}/{run.run}", reported)
            except CorruptRecordError as error:
                self.damaged[run.run] = f"{error.file}: {error.message}"
                continue
            if len(found) < len(reported):
                self.without.add(run.run)
            for metric, one in found.items():
                units[metric][run.seed] = one
        return {metric: self._by_source(index, of_seeds) for metric, of_seeds in units.items()}

    def _by_source(self, index: int, of_seeds: Mapping[int, Units]) -> _Measured | None:
        """Sums of images that share a source, of the runs of one row."""
        # sources that are equal are mostly the same array
        alike = {(len(one.values), one.labels, id(one.clusters)): one for one in of_seeds.values()}
        sets = {_test_set(one) for one in alike.values()}
        if len(sets) > 1:
            self.mixed.add(index)
        if len(sets) != 1:
            return None
        (test_set,) = sets
        values_SI = np.stack([one.values for one in of_seeds.values()])
        if test_set not in self._sources:
            clusters = next(iter(of_seeds.values())).clusters
            self._sources[test_set] = Sources(np.arange(test_set[0]) if clusters is None else clusters)
        sources = self._sources[test_set]
        return _Measured(list(of_seeds), sources.sums(values_SI), sources.sizes_U, test_set)


def _test_set(units: Units) -> _TestSet:
    return len(units.values), units.labels, b"" if units.clusters is None else units.clusters.tobytes()


def _size(measured: _Measured | None) -> int:
    return 0 if measured is None else measured.values.nbytes
