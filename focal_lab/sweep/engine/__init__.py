"""The queue of missing runs, and the executor that trains them in worker processes. Imports no torch."""
