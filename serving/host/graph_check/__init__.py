"""The checker of graphs: decides which graphs the server may run, in a process that loads no model.

A graph comes from a process that has loaded a model file, so it is treated as data from an enemy. A separate process
parses it, writes it anew from what it understood (`normal_form`), bounds its memory for any number of rows
(`memory_analysis`), and runs it (`largest_run`). The server uses only what that process wrote (`graph_checker`).
"""
