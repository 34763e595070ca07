"""The sweep file: its format, and the checks of its values."""
