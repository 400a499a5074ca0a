"""What answers: engines and the leases on them, the registry of what is active, and the use case of a prediction."""
