"""The checker of graphs: what may become a session of the server, decided where no model has run.

A graph comes from a process that has loaded a model's file, so it is data from an enemy. A process of its own parses
it, writes it anew from what it understood (`normal_form`), bounds its memory for any number of rows
(`memory_analysis`), and runs it (`largest_run`). The server uses only what that process wrote (`graph_checker`).
"""
