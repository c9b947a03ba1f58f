"""A small suite that shows what training made a model forget."""
