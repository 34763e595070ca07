"""Listing and removing runs."""
