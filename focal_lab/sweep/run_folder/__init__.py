"""The folder of a run, `runs/<id>`: file names, configuration, result, checkpoints."""
