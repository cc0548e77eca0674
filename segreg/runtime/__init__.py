"""The machine: device and memory, processes that train together, progress, files."""
