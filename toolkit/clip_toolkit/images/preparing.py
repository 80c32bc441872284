"""From any image source to the pixels that a model's graph takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_toolkit.errors import ImageError
from clip_toolkit.images.decoding import open_image
from clip_toolkit.images.limits import DecodeOptions
from clip_toolkit.images.preprocess import check_aspect, check_resized, preprocess
from clip_toolkit.images.sources import ImageSource, source_name
from clip_toolkit.spec.classifier import Preprocessing


@dataclass(frozen=True)
class Preparation:
    """How an image is decoded and, unless the graph does it, resized and cropped.

    Attributes:
        options: how it is decoded.
        preprocessing: the encoder's rule.
        in_graph: the graph resizes and crops.
    """

    options: DecodeOptions
    preprocessing: Preprocessing
    in_graph: bool = False

    def __call__(self, image: ImageSource) -> NDArray[np.uint8]:
        """Decode and prepare one image.

        Returns:
            uint8 RGB ``[size, size, 3]``, or ``[height, width, 3]`` where the graph resizes.

        Raises:
            ImageError: it cannot be decoded, or is too large, or would be once it is resized.
        """
        picture = open_image(image, self.options)
        try:
            check_aspect(picture.height, picture.width)
            check_resized(picture.height, picture.width, self.preprocessing, self.options.max_pixels)
            return np.asarray(picture) if self.in_graph else preprocess(picture, self.preprocessing)
        except ImageError as error:
            raise ImageError(f"{source_name(image)}: {error}") from error
