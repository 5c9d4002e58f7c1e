"""Figures of a trained model: latent space (2), emotion transfer (3a), poses (3b), the network (model)."""
