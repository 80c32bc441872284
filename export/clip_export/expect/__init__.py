"""The notebook's own answers: saved there, and proved through the finished file.

`save` runs in the notebook and needs NumPy alone; everything else belongs to ``clip-export --expect``.
"""

from clip_export.expect.saving import SNIPPET, SNIPPET_OF_SEVERAL, save

__all__ = ["SNIPPET", "SNIPPET_OF_SEVERAL", "save"]
