"""The server's side of hosts: start them, send a candidate to one, and check every answer.

Nothing here unpickles, and nothing here imports the package that does (`serving.host`).
"""
