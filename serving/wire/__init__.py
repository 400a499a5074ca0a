"""The protocol between the server and its hosts: frames of plain bytes, and the values in them.

Both sides import this package, and neither side imports the other.
"""
