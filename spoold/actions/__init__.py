"""What a job does: one module an action, given a context, returns an outcome."""
