"""`focal-lab predict`."""
