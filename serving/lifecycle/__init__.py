"""Control: from files in the store to versions that answer. It decides; the plane answers."""
