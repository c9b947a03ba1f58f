"""Training: SFT, DPO and RL on one policy."""
