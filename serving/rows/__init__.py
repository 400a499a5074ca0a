"""The way of a row: from what a client sent, or a table of a protocol, to a batch that a model takes."""
