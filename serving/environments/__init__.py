"""The environments on disk: finds, describes, makes and removes the Pythons that hosts can run in."""
