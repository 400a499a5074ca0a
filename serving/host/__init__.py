"""The code of a host process: it loads one candidate, checks it with gates, and answers requests with it."""
