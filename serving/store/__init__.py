"""The only code that touches the model directory: listing, staging, publishing."""
