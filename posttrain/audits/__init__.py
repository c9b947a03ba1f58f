"""Audits of rewards before training: probes that attack a reward, and what they found."""
