"""`focal-lab inspect`."""
