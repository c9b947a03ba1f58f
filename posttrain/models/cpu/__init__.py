"""What is faster on a CPU only."""
