"""`focal-lab sweep|plan|worker|runs`."""
