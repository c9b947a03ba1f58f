"""The local engine: decoding on the weights that are trained."""
