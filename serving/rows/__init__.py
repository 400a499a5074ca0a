"""The way of a row: from what a client sent, or from a table of a protocol, to the batch that a model takes."""
