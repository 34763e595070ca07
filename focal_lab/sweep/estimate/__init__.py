"""Estimates of the time and memory that a plan's runs need."""
