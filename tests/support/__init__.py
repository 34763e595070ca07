"""What several test modules share: data sets, runs, networks and servers that tests make."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
