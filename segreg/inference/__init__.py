"""From a network and images to masks."""
