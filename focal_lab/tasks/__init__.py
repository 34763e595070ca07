"""One LightningModule a task, the same methods in the same order in each, and their command line."""
