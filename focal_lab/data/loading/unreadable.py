"""Counts the images that cannot be read, over all processes that read them."""

import warnings

import torch

from focal_lab.errors import UserError


class Unreadable:
    """Which images of a data set could not be read.

    Args:
        count: images of the data set.
        limit: how many may be unreadable.
    """

    def __init__(self, count: int, limit: int) -> None:
        self.limit = limit
        # one byte each: processes set them without a lock, and the same image counts once
        self._flags = torch.zeros(count, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return int(self._flags.sum())

    def __contains__(self, index: int) -> bool:
        return bool(self._flags[index])

    def add(self, index: int, name: str, error: Exception, instead: str) -> None:
        """Warn, once, of an image that cannot be read because of `error`, and of what happens `instead`.

        Raises UserError if there are more than the limit.
        """
        if index in self:
            return
        self._flags[index] = 1
        so_far = len(self)
        reason = " ".join(str(error).split()) or type(error).__name__
        if so_far > self.limit:
            raise UserError(
                f"cannot be read ({reason}); {so_far} images are unreadable, and {self.limit} are allowed "
                "(repair or remove them, or raise the limit)",
                file=name,
                key="data.init_args.max_unreadable",
            ) from error
        warnings.warn(f"{name}: cannot be read ({reason}); {instead}; {so_far} so far", stacklevel=2)
