"""The parts of `benchmarks/gpu.py`: what is measured on a card, beside which peer, and how the numbers are shown."""
