"""`ecvae bench`: speed of a configuration on the machine at hand."""
