"""Sweep file -> cells -> runs -> queue -> worker -> result.json. Planning is pure Python: no torch."""
