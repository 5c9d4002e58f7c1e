"""Preparation by Apache Beam: on all cores of one machine, or on many machines.

The listing, the report and the split by person are made where the command runs. Beam's workers do what takes the time:
they find the faces, in lots of a few dozen photos, and write the records by tensorflow-datasets' own Beam support.
"""
