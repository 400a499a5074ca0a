"""What an environment lacks in which hosts run: stand-ins for the server's own packages, and for a newer Python.

The standard library is all that these modules import. At home none of them is imported.
"""
