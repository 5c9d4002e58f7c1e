"""The command `ecvae`."""
