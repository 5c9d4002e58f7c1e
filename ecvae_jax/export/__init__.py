"""Exports of a trained model: small checkpoints, ONNX, StableHLO, safetensors."""
