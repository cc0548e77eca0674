"""Models side by side: a recipe with some settings varied, each variant trained with the same seeds."""
