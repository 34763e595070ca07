"""From results to a table: cells, statistics, claims, notes."""
