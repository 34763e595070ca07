"""Statistics of reports: crossed intervals, tests, power, sequential analysis. NumPy and SciPy only."""
