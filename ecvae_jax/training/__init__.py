"""Training: state and optimizer, one step for one device, its map over devices, checkpoints, the loop, the watch."""
