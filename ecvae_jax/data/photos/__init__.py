"""Photos: sources, decoding, given landmarks, crops, identities and splits."""
