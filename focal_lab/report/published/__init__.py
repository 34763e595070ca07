"""The paper's tables: numbers and layouts."""
