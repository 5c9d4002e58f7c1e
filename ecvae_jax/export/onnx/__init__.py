"""ONNX: a writer for the primitives of this model, which refuses all others."""
