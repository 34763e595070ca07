"""Trainings leave nothing behind."""

from support.isolation import isolated as isolated
