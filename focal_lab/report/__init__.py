"""result.json files -> outcomes -> long table, or the paper's table. No torch: a report answers at once."""
