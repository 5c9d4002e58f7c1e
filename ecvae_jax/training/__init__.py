"""Training: state and optimiser, one step for one device, its map over devices, checkpoints, the loop, the watch."""
