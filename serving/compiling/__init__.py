"""From an estimator to an ONNX graph, and the proof that both answer alike."""
