"""A run: from recipe to results, and what it leaves in its directory."""
