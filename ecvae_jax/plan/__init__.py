"""`ecvae plan`: memory and speed of training or synthesis on a TPU, from the TPU compiler, without a TPU."""
