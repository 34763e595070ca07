"""Trained networks as tools load them."""
