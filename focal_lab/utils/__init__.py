"""What every package uses: atomic files, file locks, YAML with line numbers, text tables."""
