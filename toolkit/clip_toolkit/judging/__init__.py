"""How good answers are: figures with intervals, thresholds, mistakes, and the page that shows them."""
