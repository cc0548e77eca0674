"""segreg: semantic segmentation from plain YAML recipes."""
