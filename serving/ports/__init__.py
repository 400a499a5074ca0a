"""What several workers share of one port: sockets that listen, a count for each worker, a way to pass connections.

`listening` opens and reserves ports, `open_counts` is the memory with the counts, `handover` passes a connection from
one process to another, and `shared_port` puts them together. Linux only; standard library only, as the supervisor
imports it and little else.
"""
