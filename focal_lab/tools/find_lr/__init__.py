"""`focal-lab find-lr`."""
