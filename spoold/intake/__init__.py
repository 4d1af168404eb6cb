"""From the inbox to the queue: what is there, what is complete, claim and admit."""
