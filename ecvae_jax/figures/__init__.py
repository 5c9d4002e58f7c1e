"""The figures of the paper, drawn from a trained model: latent space (2), emotion transfer (3a), poses (3b)."""
