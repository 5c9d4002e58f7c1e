"""Evaluation: metrics, the protocol of pairs with a true image, and the baselines of every score."""
