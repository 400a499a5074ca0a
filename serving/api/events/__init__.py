"""``GET /events``: the whole state, and then everything that changes, as one stream; ``GET /history``.

`event_feed` looks for changes once for all clients of a process, and only while it has some. Each client has a
`StreamClient`, which holds what is to be sent to it. `event_stream` sends it.
"""
