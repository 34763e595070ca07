"""`focal-lab diff`: two runs compared."""
