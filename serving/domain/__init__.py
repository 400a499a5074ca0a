"""The words of the project as values: pure, immutable, without threads, files, clocks or frameworks."""
