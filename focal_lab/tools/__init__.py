"""Commands that look at a backbone or change its files."""
