"""`focal-lab profile`."""
