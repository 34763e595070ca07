"""`focal-lab export`."""
