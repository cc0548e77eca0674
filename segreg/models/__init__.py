"""The network: encoder, feature pyramid, decoder, and how a recipe builds them."""
