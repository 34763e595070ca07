"""`focal-lab fit --dry-run`."""
