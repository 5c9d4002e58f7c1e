"""Synthesis: jitted batches, adaptation to a photo, the fitted density, grids."""
