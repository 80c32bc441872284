"""How good a head is: figures, thresholds and mistakes."""
