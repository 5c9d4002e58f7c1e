"""Preparation: photos to records, by local processes or Apache Beam."""
