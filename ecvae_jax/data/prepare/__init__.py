"""Preparation: photos to records, by processes of this machine or by Apache Beam."""
