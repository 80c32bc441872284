"""Pictures of what speaks for a label: maps from the file itself or by occlusion, laid over the image."""
