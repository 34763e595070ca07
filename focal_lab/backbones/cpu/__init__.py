"""The path that attention takes on a CPU."""
