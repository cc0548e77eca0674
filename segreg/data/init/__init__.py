"""From a folder of images to a recipe: which dataset reads it, what it holds, and the settings that follow."""
