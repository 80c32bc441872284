"""What every request passes on its way in: the log, the door, and the limits."""
