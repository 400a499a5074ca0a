"""What the server and its hosts say to each other: frames of plain bytes, and the values in them.

Both sides import this package and neither imports the other.
"""
