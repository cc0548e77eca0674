"""From a trained network to masks: pictures gathered, looked at whole or in tiles, and written."""
