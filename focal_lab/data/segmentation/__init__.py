"""Data sets for semantic segmentation."""
