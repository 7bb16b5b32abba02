"""A model is one file: network, preparation, label names, weights and card."""
