"""What lies under `runs/<id>`: file names, results, checkpoints."""
