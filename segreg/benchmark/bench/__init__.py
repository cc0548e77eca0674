"""Backbones side by side: a recipe with some of its settings varied, each way trained with the same seeds."""
