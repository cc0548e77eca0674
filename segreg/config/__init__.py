"""Recipes: reading, checking and comparing them, and the sections they have."""
