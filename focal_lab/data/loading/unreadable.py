"""Pictures that cannot be read, counted over all processes that read them."""

import warnings

import torch

from focal_lab.errors import UserError


class Unreadable:
    """Which pictures of a data set could not be read.

    Args:
        count: pictures of the data set.
        limit: how many may be unreadable.
    """

    def __init__(self, count: int, limit: int) -> None:
        self.limit = limit
        # one byte each: processes set them without a lock, and twice the same one counts once
        self._flags = torch.zeros(count, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return int(self._flags.sum())

    def __contains__(self, index: int) -> bool:
        return bool(self._flags[index])

    @property
    def indices(self) -> list[int]:
        """Which they are."""
        return [int(index) for index in self._flags.nonzero()]

    def add(self, index: int, name: str, error: Exception, instead: str) -> None:
        """One more; it is warned of once, whoever comes upon it again.

        Args:
            index: its place in the data set.
            name: where it comes from.
            error: why it cannot be read.
            instead: what is done.

        Raises:
            UserError: there are more than the limit.
        """
        if self._flags[index]:
            return
        self._flags[index] = 1
        so_far = len(self)
        reason = " ".join(str(error).split()) or type(error).__name__
        if so_far > self.limit:
            raise UserError(
                f"cannot be read ({reason}); {so_far} pictures are unreadable, and {self.limit} may be "
                "(repair or remove them, or raise the limit)",
                file=name,
                key="data.init_args.max_unreadable",
            ) from error
        warnings.warn(f"{name}: cannot be read ({reason}); {instead}; {so_far} so far", stacklevel=2)
