"""The structure of a face: landmark schemes, alignment, boundary sketch, clusters and warp."""
