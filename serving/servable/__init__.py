"""What a request can hold."""
