"""Run IDs: which settings are part of a run's identity."""
