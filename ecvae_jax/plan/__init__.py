"""What a training step or synthesis asks of a TPU, from the real TPU compiler, without a TPU: `ecvae plan`."""
