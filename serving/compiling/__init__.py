"""Compile an estimator to an ONNX graph, and prove that both give the same answers."""
