"""The tabs of the page, one class each: its components, and what they do."""
