"""The server's side of hosts: start them, send a candidate to one, and check everything that it says.

Nothing here unpickles, and nothing here imports the package that does (`serving.host`).
"""
