"""Training: state and optimizer, one step for one device, its map over devices, the loop, its log and monitors."""
