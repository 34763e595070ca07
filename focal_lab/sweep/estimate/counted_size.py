"""What is said of the size at which multiply-accumulates are counted: papers have theirs."""

# Height and width in px of the input whose multiply-accumulates papers print.
PAPER_SIZES = {"classification": (224, 224), "detection": (800, 1280), "segmentation": (512, 2048)}
_SOURCES = {
    "images": "what most images become when they are evaluated",
    "assumed": "assumed: nothing here says how large the images are",
}


def pixels(size: tuple[int, int]) -> str:
    """`800 x 1280 px`: height and width."""
    return f"{size[0]} x {size[1]} px"


def counted_at(task: str, size: tuple[int, int], source: str) -> str:
    """`800 x 1088 px, what most images become when they are evaluated (papers count 800 x 1280 px)`.

    Args:
        source: as in `EvaluationSize`.
    """
    told = f"{pixels(size)}, {_SOURCES[source]}" if source in _SOURCES else pixels(size)
    other = source != "options" and size != PAPER_SIZES.get(task, size)
    return f"{told} (papers count {pixels(PAPER_SIZES[task])})" if other else told
