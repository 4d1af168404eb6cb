"""From the queue to the result: supervisor, worker loop, rescue."""
