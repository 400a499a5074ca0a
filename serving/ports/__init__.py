"""What several workers share of one port: sockets that listen, a count for each worker, a way to pass connections.

`listening` opens and reserves ports, `open_counts` is the memory with the counts, `handover` passes a connection from
one process to another, `choose_worker` says to which, and `shared_port` puts them together. `forwarding` is what the
supervisor does for workers that do not accept. Linux only; standard library only, as the supervisor imports it and
little else.
"""
