"""Synthesis: jitted batches, adaptation to one photo, the fitted density, grids."""
