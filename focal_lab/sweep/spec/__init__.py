"""The sweep file: what it may hold, and what is refused."""
