"""Utilities for all packages: atomic files, file locks, YAML with line numbers, text tables."""
