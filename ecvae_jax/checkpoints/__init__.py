"""Checkpoints: their format, how they are stored, verified, loaded and resumed from."""
