"""Writing, reading and finding checkpoints; their names in the folder of a training."""

from pathlib import Path

BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
STOPPED_CHECKPOINT = Path("checkpoints/stopped.ckpt")  # of a training that was stopped within an epoch
