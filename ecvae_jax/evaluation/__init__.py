"""Evaluation: metrics, the protocol that pairs views of one person, and the baselines it is measured beside."""
