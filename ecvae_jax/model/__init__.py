"""The network: appearance encoder, structure U-Net, initialization, and what they are conditioned on."""
