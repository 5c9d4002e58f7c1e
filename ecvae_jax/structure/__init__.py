"""The structure of a face: landmark schemes, alignment, the boundary sketch, clusters and their weights."""
