"""The decoders of segmentation_models_pytorch (SMP), with its own numbers, on any encoder."""
