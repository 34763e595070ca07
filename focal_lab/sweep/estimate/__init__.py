"""How long a plan's runs take, and how much memory."""
