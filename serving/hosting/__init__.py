"""The server's side of hosts: have them forked, put a candidate to one, and check all that it says.

Nothing here unpickles, and nothing here imports what does (`serving.host`).
"""
