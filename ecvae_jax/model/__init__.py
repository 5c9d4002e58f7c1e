"""The network: appearance encoder, structure U-Net, initialisation, and what they are conditioned on."""
