"""Several workers: one process has control, the others answer; see decision 41."""
