"""From files in the store to versions that answer: every thread of the server has its owner here."""
