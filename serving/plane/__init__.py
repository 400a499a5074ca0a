"""The plane, which answers requests: engines, leases on them, the active reference, the use case of a prediction."""
