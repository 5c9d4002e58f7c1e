"""Videos: a driver's face tracked and smoothed, its motion given to a source, frames drawn and written."""
