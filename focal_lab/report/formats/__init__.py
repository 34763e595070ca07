"""A table as text, Markdown, LaTeX and CSV."""
